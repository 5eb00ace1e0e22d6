import { ok, throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import type { Wide } from "../../../engine/kernels/linalg_wide.ts";
import {
  allocWide,
  decodeWide,
  encodeWide,
  recordProduct,
  type Target,
  WIDE_BYTES,
  wideOf,
} from "../../../engine/linalg/wide.ts";
import { uniform } from "../ops/_reference.ts";
import { DEVICES } from "./_spd.ts";

/** Numbers with 53 bits in (−1, 1), which one f32 cannot hold. */
function numbers(n: number, seed: number): Float64Array {
  const next = uniform(seed);
  return Float64Array.from({ length: n }, () => 2 * (next() + next() * 2 ** -26) - 1);
}

async function onDevice(
  gpu: Gpu,
  wide: Wide,
  inputs: Float64Array[],
  outSize: number,
  record: (r: ReturnType<Gpu["recorder"]>, buffers: ReturnType<typeof allocWide>[]) => void,
): Promise<Float64Array> {
  const buffers = [...inputs.map((v) => v.length), outSize].map((n) => allocWide(gpu, "test", n));
  inputs.forEach((values, i) => gpu.upload(buffers[i], encodeWide(values, wide)));
  const r = gpu.recorder();
  record(r, buffers);
  using plan = r.finish("test");
  plan.run();
  const [raw] = await gpu.read({ buffer: buffers[inputs.length], bytes: outSize * WIDE_BYTES });
  buffers.forEach((b) => gpu.memory.free(b));
  return decodeWide(raw, wide);
}

for (
  const [device, wide, kind] of [
    ["native", "f64", "cpu"],
    ["native", "f64", "gpu"],
    ["single", "twoFloat", "cpu"],
  ] as const
) {
  Deno.test(`recordProduct() is accurate in ${wide} as a ${kind} computes it`, async () => {
    const gpu = await DEVICES[device]();
    const before = gpu.class;
    (gpu as { class: string }).class = kind;
    try {
      const K = 37, m = 70, n = 130;
      const [a, b] = [numbers(K * m, 1), numbers(n * K, 2)];
      // A by rows of K, B by columns: A(k, i) at k·m + i, B(k, j) at j·K + k.
      const cell = (i: number, j: number) => {
        let s = 0;
        for (let k = 0; k < K; k++) s += a[k * m + i] * b[j * K + k];
        return s;
      };
      for (const subtract of [false, true]) {
        const to = { ld: n, rows: [0, m], cols: [0, n], subtract } as const;
        const got = await onDevice(gpu, wide, [a, b], m * n, (r, [x, y, c]) => {
          const [left, right] = [{ storage: x, step: m, lane: 1 }, { storage: y, step: 1, lane: K }];
          recordProduct(r, wide, left, right, K, { ...to, storage: c } satisfies Target);
        });
        // K products of size 1 at most, each rounded to 2⁻⁵³ or to a few 2⁻⁴⁷ of the sum so far.
        const limit = K * (wide === "f64" ? 2 ** -52 : 2 ** -45);
        got.forEach((v, at) => {
          const want = (subtract ? -1 : 1) * cell(Math.floor(at / n), at % n);
          ok(Math.abs(v - want) <= limit, `element ${at}: ${v - want}`);
        });
      }
      // The lower triangle of AᵀA from row 64 on, rows 64… of a panel that starts there.
      const lower = await onDevice(gpu, wide, [a], (m - 64) * m, (r, [x, c]) => {
        const lanes = { storage: x, step: m, lane: 1 };
        const to = { ld: m, rows: [64, m], cols: [0, m], panelRow: 64, lower: true } as const;
        recordProduct(r, wide, lanes, lanes, K, { ...to, storage: c });
      });
      for (let i = 64; i < m; i++) {
        for (let j = 0; j <= i; j++) {
          let want = 0;
          for (let k = 0; k < K; k++) want += a[k * m + i] * a[k * m + j];
          ok(Math.abs(lower[(i - 64) * m + j] - want) <= K * (wide === "f64" ? 2 ** -52 : 2 ** -45));
        }
      }
      gpu.check();
    } finally {
      (gpu as { class: string }).class = before;
    }
  });
}

Deno.test("wideOf() takes f64 where there is one, and refuses what a device cannot do", async () => {
  const [native, single] = [await DEVICES.native(), await DEVICES.single()];
  ok(wideOf(native) === "f64" && wideOf(native, "compensated") === "twoFloat");
  ok(wideOf(single) === "twoFloat");
  throws(() => wideOf(single, "f64"), /Cannot compute in f64: the device has no f64\nUse the route "comp/);
});
