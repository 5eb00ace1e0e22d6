import assert from "node:assert/strict";
import { findNonFinite, halfToFloat } from "../../../engine/io/dtypes.ts";

Deno.test("halfToFloat() equals the platform's Float16Array for all 65536 values", () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const expected = new Float16Array(bits.buffer);
  for (let i = 0; i < 65536; i++) {
    assert(Object.is(halfToFloat(i), expected[i]) || Number.isNaN(expected[i]), `${i}`);
  }
  assert(Number.isNaN(halfToFloat(0x7e00)));
});

Deno.test("findNonFinite() returns the first NaN or infinity, and -1 for every finite value", () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    for (let at = 0; at < 5; at++) {
      const values = [1, -3.4e38, 0, 5e-324, 2].map((value, i) => i >= at ? bad : value);
      const f32 = Float32Array.from(values);
      assert.equal(findNonFinite({ dtype: "F32" }, new Uint8Array(f32.buffer)), at);
      const f16 = Float16Array.from(values.map((value) => value === -3.4e38 ? -65504 : value));
      assert.equal(findNonFinite({ dtype: "F16" }, new Uint8Array(f16.buffer)), at);
      const bf16 = Uint16Array.from(new Uint32Array(f32.buffer), (word) => word >>> 16);
      assert.equal(findNonFinite({ dtype: "BF16" }, new Uint8Array(bf16.buffer)), at);
    }
  }
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const f16 = all.filter((bits) => Number.isFinite(halfToFloat(bits)));
  assert.equal(findNonFinite({ dtype: "F16" }, new Uint8Array(f16.buffer)), -1);
  assert.equal(f16.length, 65536 - 2 * 1024);
});

Deno.test("findNonFinite() works on bytes that are not aligned", () => {
  const bytes = new Uint8Array(13);
  bytes.set(new Uint8Array(Float32Array.of(1, NaN, 2).buffer), 1);
  assert.equal(findNonFinite({ dtype: "F32" }, bytes.subarray(1)), 1);
});
