// y[j] = max_i |A[i, j]| as the bits of an f32, over the rows of one shard and what y held before.
//   A [rows, cols] f32 or f64
// Bits order like the numbers they stand for, infinity and NaN above all: one pass scales the columns and
// finds what is not finite. One invocation a column, so neighbours read neighbouring words.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let j = id.x;
  if (j >= p.cols) { return; }
  var most = y[j];
  for (var i = 0u; i < p.rows; i++) {
    most = max(most, bitcast<u32>(f32(a[i * p.cols + j])) & 0x7fffffffu);
  }
  y[j] = most;
}
