/**
 * Eigenvalues of a diagonal matrix plus a rank-one matrix, D + ρ z zᵀ, as roots of the secular equation
 *
 *     f(λ) = 1 + ρ Σ_j z_j² / (d_j − λ) = 0
 *
 * (Golub & Van Loan 8.4.3; rational interpolation between two poles after Li, LAPACK working note 89). What
 * eigenvectors need are the differences d_j − λ, so those are kept, not λ.
 */

/** Steps of one root; bisection alone takes some 60. */
const STEPS = 200;

/**
 * The root number k, in (d_k, d_{k+1}), or above the last pole. Writes d_j − λ into `delta` and returns λ.
 * @param d poles, strictly ascending
 * @param z weights, none zero
 * @param rho > 0
 */
export function secularRoot(
  k: number,
  d: Float64Array,
  z: Float64Array,
  rho: number,
  delta: Float64Array,
): number {
  const n = d.length;
  const last = k === n - 1;
  let zz = 0;
  for (let j = 0; j < n; j++) zz += z[j] * z[j];
  const width = last ? rho * zz : d[k + 1] - d[k];
  // The root is measured from the nearer pole, so that the smallest difference is exact to its last bit.
  const middle = 1 + rho * sumOver(d, z, d[k], width / 2);
  const fromRight = !last && middle < 0;
  const origin = fromRight ? k + 1 : k;
  let low = fromRight ? -width / 2 : middle >= 0 || last ? 0 : width / 2;
  let high = fromRight ? 0 : middle >= 0 && !last ? width / 2 : width;
  if (last && middle < 0) low = width / 2;
  for (let j = 0; j < n; j++) delta[j] = d[j] - d[origin];
  let x = (low + high) / 2;
  const shifts = delta.slice();
  for (let step = 0; step < STEPS; step++) {
    let psi = 0, dpsi = 0, phi = 0, dphi = 0;
    for (let j = 0; j < n; j++) {
      const away = delta[j] = shifts[j] - x;
      const share = z[j] / away;
      if (j <= k) {
        psi += z[j] * share;
        dpsi += share * share;
      } else {
        phi += z[j] * share;
        dphi += share * share;
      }
    }
    const f = 1 + rho * (psi + phi);
    const slope = rho * (dpsi + dphi);
    const noise = Number.EPSILON * (1 + rho * 8 * (phi - psi) + Math.abs(x) * slope);
    if (Math.abs(f) <= noise) break;
    if (f < 0) low = x;
    else high = x;
    const next = x + (last ? onePole(f, rho * dpsi, delta[k]) : twoPoles(f, rho, dpsi, dphi, delta, k));
    const trial = next > low && next < high ? next : (low + high) / 2;
    if (trial === x || !(trial > low && trial < high)) break;
    x = trial;
  }
  return d[origin] + x;
}

function sumOver(d: Float64Array, z: Float64Array, base: number, x: number): number {
  let s = 0;
  for (let j = 0; j < d.length; j++) s += z[j] * z[j] / (d[j] - base - x);
  return s;
}

/** Step to the root of c + s/(Δ − x), which has f's value and slope. */
function onePole(f: number, slope: number, away: number): number {
  const s = slope * away * away;
  return away + s / (f - s / away);
}

/** Step to the root of c + s/(Δ_k − x) + S/(Δ_{k+1} − x), which has the values and slopes of both halves. */
function twoPoles(
  f: number,
  rho: number,
  dpsi: number,
  dphi: number,
  delta: Float64Array,
  k: number,
): number {
  const left = delta[k], right = delta[k + 1];
  const c = f - rho * (left * dpsi + right * dphi);
  const a = (left + right) * f - left * right * rho * (dpsi + dphi);
  const b = left * right * f;
  const discriminant = Math.sqrt(Math.max(0, a * a - 4 * b * c));
  return a <= 0 ? (a - discriminant) / (2 * c) : 2 * b / (a + discriminant);
}
