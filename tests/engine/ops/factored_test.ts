import { addFactored } from "../../../engine/ops/factored.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { freeTensor } from "../../../engine/tensor/tensor.ts";
import { checkOp, withGpu } from "../../_gpu.ts";
import { dotTolerance, normals } from "./_reference.ts";

/** y + Σ_b values_b (keys_b · x) over the b of each row's group. */
function plain(
  [x, y, keys, values]: Float64Array[],
  groups: { rows: number[]; keys: number[] },
  inner: number,
  out: number,
): Float64Array {
  const result = y.slice();
  groups.rows.forEach((group, r) =>
    groups.keys.forEach((own, b) => {
      if (own !== group) return;
      let dot = 0;
      for (let i = 0; i < inner; i++) dot += keys[b * inner + i] * x[r * inner + i];
      for (let o = 0; o < out; o++) result[r * out + o] += values[b * out + o] * dot;
    })
  );
  return result;
}

Deno.test(
  "addFactored() changes each row by its own group's factors, with gradients to all four",
  withGpu(async (gpu) => {
    const inner = 37, out = 19;
    const groups = { rows: [0, 0, 1, 2, 1, 0, 2], keys: [0, 1, 1, 2, 0] };
    const R = groups.rows.length, B = groups.keys.length;
    const rowGroups = fromHost(gpu, "row groups", [R], Uint32Array.from(groups.rows));
    const keyGroups = fromHost(gpu, "key groups", [B], Uint32Array.from(groups.keys));
    await checkOp(gpu, {
      inputs: {
        x: { shape: [R, inner], values: normals(R * inner, 1) },
        y: { shape: [R, out], values: normals(R * out, 2) },
        keys: { shape: [B, inner], values: normals(B * inner, 3) },
        values: { shape: [B, out], values: normals(B * out, 4) },
      },
      op: (ctx, { x, y, keys, values }) =>
        addFactored(ctx, x, y, { keys, values, groups: keyGroups }, rowGroups),
      reference: ({ x, y, keys, values }) => plain([x, y, keys, values], groups, inner, out),
      tolerance: dotTolerance(inner),
    });
    [rowGroups, keyGroups].forEach((t) => freeTensor(gpu, t));
  }),
);
