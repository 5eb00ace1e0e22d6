/** What tests of vocabulary-sized losses share: a small head with everything that may belong to one, in f64. */
import { ok } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import type { Weight } from "../../../engine/ops/linear.ts";
import type { VocabTargets } from "../../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, writeTensor } from "../../../engine/tensor/transfer.ts";
import { normals } from "./_reference.ts";

/** Sizes and parts of a head and of what goes through it. */
export interface Case {
  rows: number;
  width: number;
  vocab: number;
  kl?: number;
  reversed?: boolean;
  chunk?: number;
  bias?: boolean;
  overlays?: number[];
  maxShardBytes?: number;
}

/** Everything that the loss depends on, in f64. */
export type Values = Record<string, Float64Array>;

/** Logits of one row. */
export const logitsOf = (c: Case, v: Values, row: number): number[] =>
  Array.from({ length: c.vocab }, (_, t) => {
    let z = v.bias?.[t] ?? 0;
    for (let d = 0; d < c.width; d++) {
      let w = v.w[t * c.width + d];
      c.overlays?.forEach((rank, n) => {
        for (let k = 0; k < rank; k++) w += v[`left${n}`][t * rank + k] * v[`right${n}`][d * rank + k];
      });
      z += v.h[row * c.width + d] * w;
    }
    return z;
  });

/** log softmax. */
export function logProbabilities(z: readonly number[]): number[] {
  const top = Math.max(...z);
  const lse = top + Math.log(z.reduce((sum, x) => sum + Math.exp(x - top), 0));
  return z.map((x) => x - lse);
}

/** Seeded normal values of everything. */
export function valuesOf(c: Case): Values {
  const v: Values = { h: normals(c.rows * c.width, 1), w: normals(c.vocab * c.width, 2) };
  if (c.bias) v.bias = normals(c.vocab, 3);
  c.overlays?.forEach((rank, n) => {
    v[`left${n}`] = normals(c.vocab * rank, 20 + n, 0.5);
    v[`right${n}`] = normals(c.width * rank, 30 + n, 0.5);
  });
  const kl = Array.from({ length: c.kl ?? 0 }, (_, i) => logProbabilities([...normals(c.vocab, 40 + i)]));
  v.reference = Float64Array.from(kl.flat(), Math.fround);
  return v;
}

/** The same on the device. */
export function uploaded(gpu: Gpu, c: Case, v: Values) {
  const { rows, width, vocab, maxShardBytes } = c;
  const matrix = createTensor(gpu, "head", [vocab, width], { maxShardBytes });
  if (maxShardBytes) ok(matrix.shards.length > 2, "The test wants several shards");
  writeTensor(gpu, matrix, v.w);
  const bias = v.bias && fromHost(gpu, "bias", [vocab], v.bias);
  const overlays = (c.overlays ?? []).map((rank, n) => ({
    left: fromHost(gpu, "left", [vocab, rank], v[`left${n}`]),
    right: fromHost(gpu, "right", [width, rank], v[`right${n}`]),
  }));
  const targets = Array.from({ length: rows }, (_, r) => (7 * r + 3) % vocab);
  const weights = normals(rows, 5);
  const want: VocabTargets = {
    targets: fromHost(gpu, "targets", [rows], Uint32Array.from(targets)),
    weights: fromHost(gpu, "weights", [rows], weights),
    kl: c.kl
      ? { rows: c.kl, reference: fromHost(gpu, "log q", [c.kl, vocab], v.reference), reversed: c.reversed }
      : undefined,
    chunk: c.chunk,
  };
  const layout = "out_in" as const;
  const head: Weight = { role: "head", name: "w", matrix, layout, out: vocab, in: width, bias, overlays };
  const h = fromHost(gpu, "h", [rows, width], v.h);
  const all = [h, matrix, bias, want.targets, want.weights, want.kl?.reference];
  const owned = [...all, ...overlays.flatMap((o) => [o.left, o.right])].filter((t) => t !== undefined);
  return { h, head, want, targets, weights, free: () => owned.forEach((t) => freeTensor(gpu, t)) };
}
