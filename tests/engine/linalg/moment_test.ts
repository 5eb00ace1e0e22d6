import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { factorSpd } from "../../../engine/linalg/cholesky.ts";
import { SecondMoment } from "../../../engine/linalg/moment.ts";
import { createPanels, freePanels, recordRankUpdate } from "../../../engine/linalg/panels.ts";
import { readPacked, writePacked } from "../../../engine/linalg/pack.ts";
import { bufferFrom } from "../../../engine/linalg/buffers.ts";
import { freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../../engine/tensor/transfer.ts";
import { dotTolerance, normals } from "../ops/_reference.ts";
import { column, DEVICES, residuals, shifted } from "./_spd.ts";

/** Σ_t k_t k_tᵀ of the first rows of keys [T, n] in f64, lower half packed. */
function reference(keys: Float64Array, rows: number, n: number): Float64Array {
  const lower = new Float64Array(n * (n + 1) / 2);
  for (let t = 0; t < rows; t++) {
    const key = column(keys, n, t);
    for (let i = 0, at = 0; i < n; i++) for (let j = 0; j <= i; j++, at++) lower[at] += key[i] * key[j];
  }
  return lower;
}

/** Largest error relative to the roots of the diagonal elements, which is what a dot's error scales with. */
function relativeError(got: ArrayLike<number>, want: Float64Array, n: number): number {
  const size = (i: number) => Math.sqrt(want[i * (i + 3) / 2]) || 1;
  let most = 0;
  for (let i = 0, at = 0; i < n; i++) {
    for (let j = 0; j <= i; j++, at++) {
      most = Math.max(most, Math.abs(got[at] - want[at]) / (size(i) * size(j)));
    }
  }
  return most;
}

function add(gpu: Gpu, moment: SecondMoment, keys: Float64Array, rows?: number): void {
  const t = fromHost(gpu, "keys", [keys.length / moment.n, moment.n], keys);
  const r = gpu.recorder();
  moment.add(r, t, rows);
  using plan = r.finish("add");
  plan.run();
  freeTensor(gpu, t);
}

for (const device of ["native", "portable"] as const) {
  Deno.test(`SecondMoment sums in two floats when keys come in chunks on the ${device} device`, async () => {
    const gpu = await DEVICES[device]();
    for (const n of [1, 33, 64, 130]) {
      using moment = new SecondMoment(gpu, "C", n, { maxShardBytes: 64 * 192 * 4 });
      const keys = normals(600 * n, n);
      const total = reference(keys, 600, n);
      add(gpu, moment, keys);
      add(gpu, moment, keys, 600);
      add(gpu, moment, keys, 7);
      const part = reference(keys, 7, n);
      const expected = total.map((v, i) => 2 * v + part[i]);
      const { count, lower } = await moment.read();
      strictEqual(count, 1207);
      // Slices of 512 tokens are plain f32 dots; adding them is exact to 2⁻⁴⁸.
      ok(
        relativeError(lower, expected, n) <= dotTolerance(512),
        `n=${n}: ${relativeError(lower, expected, n)}`,
      );
    }
  });
}

Deno.test("SecondMoment keeps small eigenvalues when a thousand chunks are added", async () => {
  const gpu = await DEVICES.native();
  const n = 2;
  // Each key is exact in f32 and so is its outer product; the sum 1000·(1 + 2⁻¹⁰ + 2⁻²²) needs 32 bits.
  const keys = Float64Array.of(1 + 2 ** -11, 2 ** -12);
  using moment = new SecondMoment(gpu, "C", n);
  const t = fromHost(gpu, "keys", [1, n], keys);
  const r = gpu.recorder();
  moment.add(r, t);
  using plan = r.finish("add");
  plan.run(1000);
  moment.counted(999);
  const { count, lower } = await moment.read();
  strictEqual(count, 1000);
  deepStrictEqual(lower, reference(keys, 1, n).map((v) => 1000 * v));
  freeTensor(gpu, t);
});

Deno.test("SecondMoment loads what it read, and factors without a round trip as a matrix", async () => {
  for (const device of ["native", "single"] as const) {
    const gpu = await DEVICES[device]();
    const n = 70;
    using moment = new SecondMoment(gpu, "C", n, { maxShardBytes: 64 * 128 * 4 });
    add(gpu, moment, normals(300 * n, 4));
    const values = await moment.read();
    using copy = new SecondMoment(gpu, "copy", n);
    copy.load(values);
    deepStrictEqual(await copy.read(), values);
    const { waits } = gpu;
    using factor = await factorSpd(gpu, copy, {
      name: "C",
      route: device === "native" ? "f64" : "compensated",
    });
    strictEqual(gpu.waits - waits, 2);
    const C = new Float64Array(n * n);
    for (let i = 0, at = 0; i < n; i++) {
      for (let j = 0; j <= i; j++, at++) C[i * n + j] = C[j * n + i] = values.lower[at] / 300;
    }
    const b = normals(n, 5);
    const x = await factor.solve(b);
    // Division by the count is the only rounding more than in the routes' own tests.
    ok(residuals(shifted(C, n, factor.shift), n, x, b, 1)[0] <= 2e-10 * Math.sqrt(n));

    const r = gpu.recorder();
    const dense = moment.toDense(r, 40 * n * 4);
    strictEqual(dense.shards.length, 2);
    using plan = r.finish("dense");
    plan.run();
    const got = await readF32(gpu, dense);
    // hi + lo, times 1/count, each rounded to f32.
    got.forEach((v, i) => ok(Math.abs(v - C[i]) <= 2 ** -22 * Math.abs(C[i]), `${i}: ${v} is not ${C[i]}`));
    freeTensor(gpu, dense);
  }
});

Deno.test("SecondMoment refuses what does not fit", async () => {
  const gpu = await DEVICES.native();
  using moment = new SecondMoment(gpu, "C", 4);
  const keys = fromHost(gpu, "keys", [2, 3], new Float32Array(6));
  throws(() => moment.add(gpu.recorder(), keys), /Cannot add 2 rows of keys \[2, 3\] f32 to C of width 4/);
  throws(
    () => moment.load({ count: 1, lower: new Float64Array(9) }),
    /Cannot load 9 numbers into C: .* has 10/,
  );
  throws(() => moment.weight, /The second moment C has no tokens yet/);
  throws(() => new SecondMoment(gpu, "C", 4, { maxShardBytes: 100 }), /Cannot store C \[4, 4\]/);
  freeTensor(gpu, keys);
});

Deno.test("recordRankUpdate() subtracts the same product in every family and precision", async () => {
  const gpu = await DEVICES.native();
  const n = 200;
  const K = 13;
  // One row more than is multiplied: a slice that runs over the end would find numbers there.
  const a = normals((K + 1) * n, 8);
  const product = reference(a, K, n);
  const start = product.map((_, i) => Math.fround(Math.sin(i)));
  const families = [["register", "f64"], ["register", "f32"], ["tiled", "f64"], ["tiled", "f32"], [
    "subgroup",
    "f32",
  ]];
  for (const [family, real] of families as ["register" | "tiled" | "subgroup", "f64" | "f32"][]) {
    const panels = createPanels(gpu, "C", n, real, 64 * 256 * 8);
    writePacked(gpu, panels, start);
    const storage = bufferFrom(gpu, "A", real === "f64" ? a : Float32Array.from(a));
    const r = gpu.recorder();
    const factor = { storage, offset: 0, K, ld: n, last: n - 1 };
    // The whole triangle, then the columns [64, 100) of rows from 64 on a second time.
    recordRankUpdate(r, panels, factor, { epilogue: "minus", family });
    recordRankUpdate(r, panels, factor, { epilogue: "minus", family, from: 64, colEnd: 100 });
    using plan = r.finish("update");
    plan.run();
    const got = await readPacked(gpu, panels);
    const times = (i: number, j: number) => i >= 64 && j >= 64 && j < 100 ? 2 : 1;
    const tolerance = real === "f64" ? 2e-14 : dotTolerance(K) * K;
    for (let i = 0, at = 0; i < n; i++) {
      for (let j = 0; j <= i; j++, at++) {
        const want = start[at] - times(i, j) * product[at];
        ok(
          Math.abs(got[at] - want) <= tolerance * K,
          `${family} ${real} (${i}, ${j}): ${got[at]}, not ${want}`,
        );
      }
    }
    gpu.memory.free(storage);
    freePanels(gpu, panels);
  }
});
