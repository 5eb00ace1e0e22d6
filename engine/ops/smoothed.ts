/**
 * Label smoothing (Szegedy et al. 2016, section 7) as a divergence: with q that gives the answer 1 − ε and every other
 * token ε/(V − 1), the smoothed loss −Σ q log p is KL(q ‖ p) plus q's entropy.
 */
import { elementGrid } from "../kernels/elementwise.ts";
import { smoothedTargetsKernel } from "../kernels/smoothed.ts";
import { storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, temp } from "./context.ts";

const off = (epsilon: number, vocab: number) => Math.log(epsilon / (vocab - 1));

/** log q [R, vocab] of answers u32 [R]; 0 < ε < 1. A reference of `vocabLoss`. */
export function smoothedTargets(ctx: Ctx, targets: Tensor, vocab: number, epsilon: number): Tensor {
  const n = targets.shape[0] * vocab;
  const y = temp(ctx, "smoothed answers", [targets.shape[0], vocab]);
  ctx.r.dispatch(smoothedTargetsKernel, {
    bind: { target_ids: storageOf(targets), y: storageOf(y) },
    params: { n, vocab, on: Math.log1p(-epsilon), off: off(epsilon, vocab) },
    grid: elementGrid(n),
  });
  return y;
}

/** q's entropy in nats: the least that the smoothed loss can be. */
export function smoothedEntropy(vocab: number, epsilon: number): number {
  return -(1 - epsilon) * Math.log1p(-epsilon) - epsilon * off(epsilon, vocab);
}
