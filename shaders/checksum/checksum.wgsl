// sums[2·slot + s] += Σ_i mix_s(word[i], first + i) mod 2³² for s = 0, 1: a checksum of a tensor's bits as they
// are stored. A word is mixed with its position by a bijection of 32 bits (the finishers of MurmurHash3, and
// lowbias32 of C. Wellons), so one changed word always changes the sum; integer sums do not depend on order.
//   words: p.words of them count, of the last one only the bits of p.lastMask; sums u32 [slots, 2]
//   p.first: position of the first word in the whole tensor, so that row shards make no difference
// A workgroup takes 1024 vec4, an invocation every 64th of them; each word is read once, four at a time, and a
// workgroup adds to the sums once.
const LANES: u32 = 64u;
const EACH: u32 = 16u;
var<workgroup> part: array<vec2<u32>, LANES>;

fn murmur(word: vec4<u32>) -> vec4<u32> {
  var x = (word ^ (word >> vec4<u32>(16u))) * 0x85ebca6bu;
  x = (x ^ (x >> vec4<u32>(13u))) * 0xc2b2ae35u;
  return x ^ (x >> vec4<u32>(16u));
}

fn lowbias(word: vec4<u32>) -> vec4<u32> {
  var x = (word ^ (word >> vec4<u32>(16u))) * 0x7feb352du;
  x = (x ^ (x >> vec4<u32>(15u))) * 0x846ca68bu;
  return x ^ (x >> vec4<u32>(16u));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let base = (wg.y * grid.x + wg.x) * LANES * EACH + lane;
  let quads = (p.words + 3u) / 4u;
  var a = vec4<u32>();
  var b = vec4<u32>();
  for (var i = 0u; i < EACH; i++) {
    let quad = base + i * LANES;
    if (quad >= quads) { break; }
    let at = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u);
    let mask = select(vec4<u32>(0xffffffffu), vec4<u32>(p.lastMask), at == vec4<u32>(p.words - 1u));
    let word = words[quad] & mask;
    let position = at + p.first;
    let live = at < vec4<u32>(p.words);
    a += select(vec4<u32>(), murmur(word ^ (position * 0x9e3779b1u)), live);
    b += select(vec4<u32>(), lowbias(word * 0x2545f491u + position * 0x27220a95u), live);
  }
  part[lane] = vec2<u32>(a.x + a.y + a.z + a.w, b.x + b.y + b.z + b.w);
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) { part[lane] += part[lane + step]; }
    workgroupBarrier();
  }
  if (lane < 2u) { atomicAdd(&sums[2u * p.slot + lane], part[0][lane]); }
}
