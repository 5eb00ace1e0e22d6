/** The scope classifier's loss against f64 and finite differences, and against the formula near D = 0. */
import { scopeLoss } from "../../../engine/ops/scope_loss.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, ELEMENTWISE, normals } from "./_reference.ts";

/** In f64. */
function reference(pairs: number, width: number, positive: number[], weights: number[]) {
  return ({ a, b }: Record<string, Float64Array>) =>
    Float64Array.from({ length: pairs }, (_, r) => {
      let d = 0;
      for (let i = 0; i < width; i++) d += (a[r * width + i] - b[r * width + i]) ** 2;
      return weights[r] * (positive[r] ? d : -Math.log(-Math.expm1(-Math.max(d, 1e-6))));
    });
}

for (const [pairs, width] of [[1, 1], [5, 3], [67, 16]]) {
  Deno.test(
    `scopeLoss() and its gradients are the formula's at ${pairs} pairs of ${width}`,
    withGpu(async (gpu) => {
      const positive = Array.from({ length: pairs }, (_, i) => i % 2);
      const weights = Array.from({ length: pairs }, (_, i) => Math.fround(0.5 + 0.1 * (i % 7)));
      // Distances around 1, where both the loss and its slope are alive.
      const spread = 0.7 / Math.sqrt(width);
      const flags = fromHost(gpu, "positive", [pairs], Uint32Array.from(positive));
      const scales = fromHost(gpu, "weights", [pairs], Float32Array.from(weights));
      await checkOp(gpu, {
        inputs: {
          a: { shape: [pairs, width], values: normals(pairs * width, 1, spread) },
          b: { shape: [pairs, width], values: normals(pairs * width, 2, spread) },
        },
        op: (ctx, { a, b }) => scopeLoss(ctx, { a, b, positive: flags, weights: scales }),
        reference: reference(pairs, width, positive, weights),
        // Two calls of exp and log; the slope 1/(e^D − 1) doubles what D is off by.
        tolerance: 4 * ELEMENTWISE,
      });
    }),
  );
}

Deno.test(
  "scopeLoss() is finite and right for embeddings that are the same or nearly so",
  withGpu(async (gpu) => {
    const steps = [0, 1e-5, 1e-4, 1e-2, 0.1, 0.3, 0.32, 1, 12];
    const a = fromHost(gpu, "a", [steps.length, 1], Float32Array.from(steps));
    const b = fromHost(gpu, "b", [steps.length, 1], new Float32Array(steps.length));
    const positive = fromHost(gpu, "positive", [steps.length], new Uint32Array(steps.length));
    const weights = fromHost(gpu, "weights", [steps.length], new Float32Array(steps.length).fill(1));
    const [loss] = await evaluate(gpu, (ctx) => [scopeLoss(ctx, { a, b, positive, weights })]);
    const expected = steps.map((x) => -Math.log(-Math.expm1(-Math.max(Math.fround(x) ** 2, 1e-6))));
    assertClose(loss, Float64Array.from(expected), 1e-5, "loss");
  }),
);
