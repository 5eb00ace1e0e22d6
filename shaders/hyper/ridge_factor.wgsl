// Factors S + e^λ I = L Lᵀ in place, λ = lambda[at]; S [n, n] symmetric, of which the lower triangle becomes L.
// One workgroup: column after column, each invocation takes every WG-th row; n of a few hundred (n³/3 products).
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  let ridge = exp(lambda[p.at]);
  for (var k = 0u; k < p.n; k++) {
    // Column k less what the columns before it explain.
    for (var i = k + lane; i < p.n; i += WG) {
      var sum = s[i * p.n + k];
      if (i == k) { sum += ridge; }
      for (var j = 0u; j < k; j++) { sum -= s[i * p.n + j] * s[k * p.n + j]; }
      s[i * p.n + k] = sum;
    }
    storageBarrier();
    let pivot = sqrt(max(s[k * p.n + k], 1e-30));
    storageBarrier();
    for (var i = k + lane; i < p.n; i += WG) {
      if (i == k) { s[i * p.n + k] = pivot; } else { s[i * p.n + k] /= pivot; }
    }
    storageBarrier();
  }
}
