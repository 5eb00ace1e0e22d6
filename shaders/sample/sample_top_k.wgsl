// y[r] = a token drawn from the k likeliest of row r: the i-th of them with a probability in proportion to
// w_i = e^((z_i − z_0)·sharpness), among the first that together reach `share` of Σ w (top-p; always one).
//   logits [rows, width] f32, y [rows] u32; a higher logit comes first, then a lower id; NaN never
//   uniforms [steps, rows]: the random number of each draw in [0, 1]; row r is at step positions[r] + 1 − start[r]
// One workgroup a row. An invocation keeps the best token of its stride of the row, every WG-th. k times the
// best of all is taken, and all invocations scan its stride again for the best one that comes after it. So the
// row is read once, and a WG-th of it once for each token taken. Invocation 0 draws.
var<workgroup> part: array<f32, WG>;
var<workgroup> part_at: array<u32, WG>;
var<workgroup> kept: array<f32, MOST>;
var<workgroup> kept_at: array<u32, MOST>;
const LOWEST: f32 = -3.4028234e38;
const NONE: u32 = 0xffffffffu;

struct Token { z: f32, id: u32 }

fn before(a: Token, b: Token) -> bool { return a.z > b.z || (a.z == b.z && a.id < b.id); }

// The first of all invocations' tokens, in part[0]. All must call it.
fn first_of(lane: u32, mine: Token) -> Token {
  workgroupBarrier();
  part[lane] = mine.z;
  part_at[lane] = mine.id;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      let other = Token(part[lane + half], part_at[lane + half]);
      if (before(other, Token(part[lane], part_at[lane]))) {
        part[lane] = other.z;
        part_at[lane] = other.id;
      }
    }
    workgroupBarrier();
  }
  return Token(part[0], part_at[0]);
}

fn draw(row: u32) -> u32 {
  let top = kept[0];
  var total = 0.0;
  var count = 0u;
  while (count < p.k && kept_at[count] != NONE) {
    kept[count] = exp((kept[count] - top) * p.sharpness);
    total += kept[count];
    count++;
  }
  var mass = 0.0;
  var last = 0u;
  while (last < count && (last == 0u || mass < p.share * total)) {
    mass += kept[last];
    last++;
  }
  let step = min(positions[row] + 1u - start[row], p.steps - 1u);
  var point = uniforms[step * p.rows + row] * mass;
  for (var i = 0u; i < last; i++) {
    point -= kept[i];
    if (point < 0.0) { return kept_at[i]; }
  }
  if (last == 0u) { return 0u; }
  return kept_at[last - 1u];
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let row = wg.y * grid.x + wg.x;
  if (row >= p.rows) { return; }
  let z0 = row * p.width;
  var mine = Token(LOWEST, NONE);
  for (var c = lane; c < p.width; c += WG) {
    let token = Token(logits[z0 + c], c);
    if (before(token, mine)) { mine = token; }
  }
  for (var i = 0u; i < p.k; i++) {
    let taken = first_of(lane, mine);
    if (lane == 0u) {
      kept[i] = taken.z;
      kept_at[i] = taken.id;
    }
    let stride = taken.id % WG;
    var next = Token(LOWEST, NONE);
    for (var c = stride + WG * lane; c < p.width; c += WG * WG) {
      let token = Token(logits[z0 + c], c);
      if (before(taken, token) && before(token, next)) { next = token; }
    }
    next = first_of(lane, next);
    if (lane == stride) { mine = next; }
  }
  if (lane == 0u) { y[row] = draw(row); }
}
