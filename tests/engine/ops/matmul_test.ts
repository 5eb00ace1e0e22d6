import { throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { type Layout, matmul, matmulRaw } from "../../../engine/ops/matmul.ts";
import { createTensor, freeTensor, storageOf, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors, writeBytes } from "../../../engine/tensor/transfer.ts";
import { asGpuClass, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, normals, pack } from "./_reference.ts";

const LAYOUTS: Layout[] = ["nt", "nn", "tn"];

/** One product. Offsets and paddings of rows are in elements and default to 0. */
interface Case {
  layout: Layout;
  size: [M: number, N: number, K: number];
  dtype?: "f32" | "f16" | "bf16";
  offsets?: [a: number, b: number, c: number, bias: number];
  pads?: [a: number, b: number, c: number];
  bias?: boolean;
  residual?: boolean;
  accumulate?: boolean;
  alpha?: number;
}

/** Uploads values, packed where the dtype asks for it; the values that the device then sees. */
function upload(gpu: Gpu, label: string, values: Float64Array, dtype: "f32" | "f16" | "bf16") {
  if (dtype === "f32") return { tensor: fromHost(gpu, label, [values.length], values), values };
  const packed = pack(values, dtype);
  const tensor = createTensor(gpu, label, [values.length], { dtype });
  writeBytes(gpu, tensor, 0, packed.bytes);
  return { tensor, values: packed.values };
}

/** Records all cases into one plan and compares the whole of C, so that stores out of place are seen. */
async function check(gpu: Gpu, cases: Case[], asGpu: boolean): Promise<void> {
  const r = gpu.recorder();
  const ctx = asGpu ? asGpuClass({ gpu, r }) : { gpu, r };
  const made: Tensor[] = [];
  const results = cases.map((one, seed) => {
    const { layout, size: [M, N, K], dtype = "f32", offsets = [0, 0, 0, 0], pads = [0, 0, 0] } = one;
    const [aOffset, bOffset, cOffset, biasOffset] = offsets;
    const lda = (layout === "tn" ? M : K) + pads[0];
    const ldb = (layout === "nt" ? K : N) + pads[1];
    const ldc = N + pads[2];
    const count = (offset: number, rows: number, ld: number) => Math.ceil((offset + rows * ld) / 4) * 4;
    const a = upload(gpu, "a", normals(count(aOffset, layout === "tn" ? K : M, lda), 4 * seed), "f32");
    const b = upload(gpu, "b", normals(count(bOffset, layout === "nt" ? N : K, ldb), 4 * seed + 1), dtype);
    const c = upload(gpu, "c", normals(count(cOffset, M, ldc), 4 * seed + 2), "f32");
    const residual = upload(gpu, "residual", normals(c.values.length, 4 * seed + 3), "f32");
    const bias = upload(gpu, "bias", normals(biasOffset + N, 4 * seed + 5), "f32");
    const expected = c.values.slice();
    const A = (m: number, k: number) => a.values[aOffset + (layout === "tn" ? k * lda + m : m * lda + k)];
    const B = (k: number, n: number) => b.values[bOffset + (layout === "nt" ? n * ldb + k : k * ldb + n)];
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) {
        const at = cOffset + m * ldc + n;
        let sum = 0;
        for (let k = 0; k < K; k++) sum += A(m, k) * B(k, n);
        expected[at] = sum * (one.alpha ?? 1) + (one.bias ? bias.values[biasOffset + n] : 0) +
          (one.residual ? residual.values[at] : 0) + (one.accumulate ? c.values[at] : 0);
      }
    }
    const shape = { M, N, K, lda, ldb, ldc, aOffset, bOffset, cOffset };
    matmulRaw(
      ctx,
      layout,
      storageOf(a.tensor),
      { storage: storageOf(b.tensor), dtype },
      storageOf(c.tensor),
      shape,
      {
        bias: one.bias ? bias.tensor : undefined,
        biasOffset,
        residual: one.residual ? residual.tensor : undefined,
        accumulate: one.accumulate,
        alpha: one.alpha,
      },
    );
    made.push(...[a, b, c, residual, bias].map((x) => x.tensor));
    return { c: c.tensor, expected, tolerance: dotTolerance(K), label: JSON.stringify(one) };
  });
  using plan = r.finish("matmul test");
  plan.run();
  const actual = await readTensors(gpu, ...results.map((x) => x.c));
  results.forEach((x, i) => assertClose(actual[i] as Float32Array, x.expected, x.tolerance, x.label));
  made.forEach((t) => freeTensor(gpu, t));
}

/** Runs the same cases on both families: what a CPU driver with subgroups of 8 uses, and what GPUs use. */
function bothFamilies(name: string, cases: Case[]): void {
  Deno.test(`matmulRaw() equals the f64 product ${name}`, withGpu((gpu) => check(gpu, cases, false)));
  Deno.test(
    `matmulRaw() equals the f64 product ${name}, kernels of GPUs`,
    withGpu((gpu) => check(gpu, cases, true)),
  );
}

const inAllLayouts = (...sizes: Case["size"][]): Case[] =>
  LAYOUTS.flatMap((layout) => sizes.map((size) => ({ layout, size })));

// Tiles of the CPU family are 8 to 48 rows high and 8 to 64 columns wide and take 8 of K a step; those of
// the GPU family are 16, 32 or 64 square and take 16.
bothFamilies("when sizes are one, below, at and above a tile", [
  ...inAllLayouts([1, 1, 1], [8, 8, 8], [7, 7, 7], [9, 12, 20], [17, 13, 16], [16, 16, 9]),
]);

bothFamilies("when several tiles meet", [
  { layout: "nt", size: [53, 36, 24] },
  { layout: "nn", size: [67, 40, 8] },
  { layout: "tn", size: [12, 132, 37] },
  { layout: "nt", size: [41, 37, 31] },
  { layout: "nt", size: [37, 36, 24] },
  { layout: "nn", size: [70, 35, 16] },
]);

bothFamilies("when there are few rows", [
  ...[1, 2, 3].map((M): Case => ({ layout: "nt", size: [M, 7, 44], bias: M === 1, accumulate: M === 2 })),
  ...[1, 3].map((M): Case => ({ layout: "nt", size: [M, 17, 72], residual: M === 3 })),
  { layout: "nt", dtype: "bf16", size: [1, 17, 72] },
  { layout: "nt", dtype: "bf16", size: [2, 17, 80] },
  { layout: "nt", dtype: "f16", size: [2, 8, 64], offsets: [4, 8, 3, 0], pads: [4, 8, 1] },
]);

bothFamilies("when there are many rows", [
  { layout: "nt", size: [205, 64, 16], residual: true },
  { layout: "nt", size: [193, 50, 8] },
  { layout: "nn", size: [229, 128, 8], accumulate: true },
]);

bothFamilies("when K is long", [
  { layout: "nn", size: [3, 8, 4100], bias: true, alpha: 2 },
  ...[1, 2, 3].map((M): Case => ({ layout: "nn", size: [M, 36, 4101], accumulate: M === 2 })),
  { layout: "nn", size: [1, 132, 4100] },
  ...[1, 3].map((M): Case => ({ layout: "nn", size: [M, 200, 4101], accumulate: M === 3 })),
  { layout: "nn", dtype: "bf16", size: [2, 8, 4104] },
  { layout: "nn", dtype: "bf16", size: [2, 272, 4104] },
  { layout: "nn", dtype: "f16", size: [1, 72, 4097], offsets: [3, 8, 0, 0], pads: [5, 8, 0] },
  { layout: "tn", size: [8, 8, 4121], residual: true, accumulate: true },
]);

bothFamilies("when B is packed", [
  ...(["f16", "bf16"] as const).flatMap((dtype) =>
    LAYOUTS.flatMap((layout): Case[] => [
      { layout, dtype, size: [9, 16, 24] },
      { layout, dtype, size: [5, 7, 9] },
    ])
  ),
]);

const EPILOGUES: Partial<Case>[] = [
  { bias: true },
  { residual: true },
  { accumulate: true, alpha: -0.5 },
  { bias: true, residual: true, accumulate: true, alpha: 3 },
];

bothFamilies("when an epilogue follows", [
  ...EPILOGUES.flatMap((epilogue): Case[] => [
    { layout: "nt", size: [9, 12, 16], ...epilogue },
    { layout: "nt", size: [9, 7, 16], ...epilogue },
  ]),
]);

bothFamilies("when matrices are parts of larger ones", [
  { layout: "nt", size: [9, 12, 16], offsets: [8, 16, 4, 4], pads: [4, 8, 12], bias: true },
  { layout: "nn", size: [9, 12, 16], offsets: [3, 5, 7, 1], pads: [1, 3, 5], bias: true, residual: true },
  { layout: "tn", size: [9, 12, 16], offsets: [4, 5, 8, 0], pads: [3, 4, 4] },
  { layout: "nt", size: [9, 12, 16], offsets: [0, 1, 8, 0], pads: [4, 1, 4] },
  { layout: "nn", size: [9, 16, 11], offsets: [0, 0, 4, 0], pads: [0, 0, 4] },
  { layout: "nt", size: [3, 8, 16], dtype: "bf16", offsets: [4, 3, 0, 0], pads: [0, 5, 0] },
  { layout: "nn", size: [3, 8, 16], dtype: "f16", offsets: [4, 8, 0, 0], pads: [0, 8, 0] },
]);

Deno.test(
  "matmul() refuses operands that do not fit",
  withGpu((gpu) => {
    const [a, b, c] = [[2, 3], [5, 4], [2, 5]].map((shape, i) => createTensor(gpu, "abc"[i], shape));
    const ctx = { gpu, r: gpu.recorder() };
    throws(
      () => matmul(ctx, "nt", a, b, c),
      /Cannot multiply a \[2, 3\] by b \[5, 4\]: inner sizes 3 and 4 differ/,
    );
    throws(
      () => matmul(ctx, "tn", c, a, b),
      /Cannot store the \[5, 3\] product of c \[2, 5\] and a \[2, 3\] in b/,
    );
    [a, b, c].forEach((t) => freeTensor(gpu, t));
  }),
);
