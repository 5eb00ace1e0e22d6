// Activations f(x) and their derivatives f'(x). All sigmoid-like ones go through `sigmoid`: its exponent
// is bounded so that no infinity appears, and x·sigmoid keeps its relative accuracy where 1 + tanh cancels.
// The driver's tanh is not used: it is inaccurate near 0.

fn sigmoid(z: f32) -> f32 { return 1.0 / (1.0 + exp(min(-z, 80.0))); }

// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = √(2/π) (x + 0.044715 x³).
fn gelu_new_twice_u(x: f32) -> f32 { return 1.5957691216 * x * (1.0 + 0.044715 * x * x); }
fn gelu_new(x: f32) -> f32 { return x * sigmoid(gelu_new_twice_u(x)); }
fn d_gelu_new(x: f32) -> f32 {
  let z = gelu_new_twice_u(x);
  let s = sigmoid(z);
  return s + x * s * sigmoid(-z) * 1.5957691216 * (1.0 + 0.134145 * x * x);
}

// Φ(x) = (1 + erf(x/√2))/2. Inside |z| < 1 the odd polynomial of Cephes' erff, outside the exponential
// fit of erfc from Numerical Recipes (relative 1.2e-7), both in z = x/√2.
fn normal_cdf(x: f32) -> f32 {
  let z = abs(x) * 0.70710678119;
  let q = z * z;
  let near = z * (1.128379165726710 + q * (-0.3761262582423300 + q * (0.1128358514861418 +
    q * (-0.02685381193529856 + q * (0.005188327685732524 + q * (-8.010193625184903e-4 +
    q * 7.853861353153693e-5))))));
  let t = 1.0 / (1.0 + 0.5 * z);
  let fit = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 +
    t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
  // The upper tail 1 − Φ(|x|), from which both signs follow.
  let tail = select(0.5 * t * exp(max(fit - q, -87.0)), 0.5 - 0.5 * near, z < 1.0);
  return select(tail, 1.0 - tail, x >= 0.0);
}
fn gelu(x: f32) -> f32 { return x * normal_cdf(x); }
fn d_gelu(x: f32) -> f32 { return normal_cdf(x) + x * 0.3989422804 * exp(max(-0.5 * x * x, -87.0)); }

fn silu(x: f32) -> f32 { return x * sigmoid(x); }
fn d_silu(x: f32) -> f32 { return sigmoid(x) * (1.0 + x * sigmoid(-x)); }

fn relu(x: f32) -> f32 { return max(x, 0.0); }
fn d_relu(x: f32) -> f32 { return select(0.0, 1.0, x > 0.0); }

fn quick_gelu(x: f32) -> f32 { return x * sigmoid(1.702 * x); }
fn d_quick_gelu(x: f32) -> f32 { return sigmoid(1.702 * x) * (1.0 + 1.702 * x * sigmoid(-1.702 * x)); }
