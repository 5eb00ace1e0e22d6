import assert from "node:assert/strict";
import { fromFloat32, toFloat32 } from "../../../engine/io/convert.ts";

Deno.test("fromFloat32() rounds to F16 as the platform's Float16Array does", () => {
  // Every f16, its neighbours half a step away, and the f32 values just beside those ties.
  const values: number[] = [];
  const bits = new Uint32Array(1), float = new Float32Array(bits.buffer);
  for (let half = 0; half < 0x7c00; half++) {
    const [a, b] = new Float16Array(Uint16Array.of(half, half + 1).buffer);
    float[0] = b === Infinity ? 65520 : (a + b) / 2;
    for (const step of [-1, 0, 1]) {
      bits[0] += step;
      values.push(float[0], -float[0]);
      bits[0] -= step;
    }
    values.push(a, -a);
  }
  const input = Float32Array.from(values);
  const actual = new Uint16Array(fromFloat32("F16", input).buffer);
  const expected = new Uint16Array(Float16Array.from(input).buffer);
  assert.deepEqual(actual, expected);
});

Deno.test("toFloat32() undoes fromFloat32() for every finite 16-bit value", () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  for (const [dtype, exponent] of [["F16", 0x7c00], ["BF16", 0x7f80]] as const) {
    const finite = all.filter((bits) => (bits & exponent) !== exponent);
    const bytes = new Uint8Array(finite.buffer);
    assert.deepEqual(fromFloat32(dtype, toFloat32(dtype, bytes)), bytes);
  }
});
