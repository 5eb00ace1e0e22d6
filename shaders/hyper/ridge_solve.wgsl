// X of L Lᵀ X = B for B [n, width], L the lower triangle of l [n, n]. One invocation a column, forward and back, in
// its own column of x; L is read by all of them.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.width) { return; }
  for (var i = 0u; i < p.n; i++) {
    var sum = b[i * p.width + c];
    for (var j = 0u; j < i; j++) { sum -= l[i * p.n + j] * x[j * p.width + c]; }
    x[i * p.width + c] = sum / l[i * p.n + i];
  }
  for (var back = 0u; back < p.n; back++) {
    let i = p.n - 1u - back;
    var sum = x[i * p.width + c];
    for (var j = i + 1u; j < p.n; j++) { sum -= l[j * p.n + i] * x[j * p.width + c]; }
    x[i * p.width + c] = sum / l[i * p.n + i];
  }
}
