// Rotates pairs of each head by the angle of the row's position: (a, b) → (a·cos − b·sin, a·sin + b·cos).
// x, y [rows, heads·headDim]; table [maxPositions, rotaryDim/2, 2] = (cos, sin); positions [rows].
// Pair j is (j, j + rotaryDim/2), or (2j, 2j + 1) when INTERLEAVED; elements past rotaryDim are copied.
// `direction` −1 turns back: the gradient. An invocation computes one pair; x read and y written once.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.pairs) { return; }
  let per_head = p.head_dim / 2u;
  let j = i % per_head;
  let head = i / per_head;
  let turning = p.rotary_dim / 2u;
  let start = head * p.head_dim;
  var at_a = start + 2u * j;
  var at_b = at_a + 1u;
  var cosine = 1.0;
  var sine = 0.0;
  if (j < turning) {
    if (!INTERLEAVED) {
      at_a = start + j;
      at_b = at_a + turning;
    }
    let entry = 2u * (positions[head / p.heads] * turning + j);
    cosine = table[entry];
    sine = table[entry + 1u] * p.direction;
  }
  let a = x[at_a];
  let b = x[at_b];
  var turned = vec2<f32>(a * cosine - b * sine, a * sine + b * cosine);
  if (ACC) { turned += vec2<f32>(y[at_a], y[at_b]); }
  y[at_a] = turned.x;
  y[at_b] = turned.y;
}
