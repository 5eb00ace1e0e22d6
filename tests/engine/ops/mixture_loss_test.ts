/** The loss of a mixture of two models against f64 and finite differences. */
import { mixtureLoss } from "../../../engine/ops/mixture_loss.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, withGpu } from "../../_gpu.ts";
import { ELEMENTWISE, normals } from "./_reference.ts";

const EPS = 1.1920928955078125e-7;

function softmax(z: ArrayLike<number>): number[] {
  const top = Math.max(...Array.from(z));
  const e = Array.from(z, (x) => Math.exp(x - top));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

for (const [rows, vocab, klStart] of [[1, 1, 1], [5, 7, 3], [9, 70, 4]]) {
  Deno.test(
    `mixtureLoss() and its gradients are the formula's at ${rows} rows of ${vocab} words`,
    withGpu(async (gpu) => {
      const targets = Uint32Array.from({ length: rows }, (_, r) => (3 * r) % vocab);
      const weights = Float32Array.from({ length: rows }, (_, r) => 0.5 + 0.1 * (r % 7));
      const logits = normals(rows * vocab, 3, 1);
      const base = Float32Array.from(
        Array.from({ length: rows }, (_, r) => softmax(logits.subarray(r * vocab, (r + 1) * vocab))).flat(),
        Math.log,
      );
      const given = {
        base: fromHost(gpu, "base", [rows, vocab], base),
        targets: fromHost(gpu, "targets", [rows], targets),
        weights: fromHost(gpu, "weights", [rows], weights),
      };
      const distances = normals(rows, 2, 1).map((x) => Math.fround(Math.abs(x)));
      await checkOp(gpu, {
        inputs: {
          z: { shape: [rows, vocab], values: normals(rows * vocab, 1, 1) },
          distance: { shape: [rows], values: distances },
        },
        op: (ctx, { z, distance }) => mixtureLoss(ctx, { ...given, z, distance, klStart }),
        reference: ({ z, distance }) =>
          Float64Array.from({ length: rows }, (_, r) => {
            const b = Array.from(base.subarray(r * vocab, (r + 1) * vocab), Math.exp);
            const c = softmax(z.subarray(r * vocab, (r + 1) * vocab));
            const s = Math.exp(-distance[r]);
            const m = b.map((p, v) => (1 - s) * p + s * c[v] + EPS);
            const sum = 1 + vocab * EPS;
            const loss = r < klStart
              ? -Math.log(m[targets[r]] / sum)
              : b.reduce((total, p, v) => total + p * (Math.log(p) - Math.log(m[v] / sum)), 0);
            return weights[r] * loss;
          }),
        // A sum over the vocabulary of terms that each have an exp and a log behind them.
        tolerance: 8 * ELEMENTWISE,
      });
    }),
  );
}
