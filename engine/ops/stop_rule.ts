/**
 * Early stopping without readback: a kernel notes the losses, decides which of several optimisations go on,
 * and opens the gate that turns the rest of the replayed loop into nothing.
 */
import { stopRuleKernel, sureRuleKernel } from "../kernels/stop_rule.ts";
import { storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

/** The loop's state; all of it outlives the plan. */
export interface StopState {
  /** f32 [E, parts]: the terms of this step's losses. */
  terms: Tensor;
  /** u32 [E]: 1 while an optimisation goes on; all 1 at the start. */
  active: Tensor;
  /** u32 [E]: the step at which each one stopped. */
  taken: Tensor;
  /** u32 [E]: 1 + the step at which a loss was not finite, else 0. */
  bad: Tensor;
  /** f32 [steps, E, parts]: every step's terms. */
  history: Tensor;
  /** u32 [1]: the step counter, from 0. */
  step: Tensor;
  /** u32 [1]: 0 while anybody is active. Record the loop under `recorder.gated(storageOf(gate), …)`. */
  gate: Tensor;
}

/** Applies the rule once: stop below the threshold, at the last step, or at a loss that is not finite. */
export function stopRule(ctx: Ctx, state: StopState, threshold: number): void {
  const [steps, edits, parts] = state.history.shape;
  const { terms, active, taken, bad, history, step, gate } = state;
  ctx.r.dispatch(stopRuleKernel, {
    bind: {
      terms: storageOf(terms),
      active_: storageOf(active),
      taken: storageOf(taken),
      bad: storageOf(bad),
      history: storageOf(history),
      step: storageOf(step),
      gate_: storageOf(gate),
    },
    params: { edits, parts, steps, threshold },
    grid: [1, 1, 1],
  });
}

/** What {@link sureRule} looks at, row by row: all u32 [R]. */
export interface SureRows {
  /** The likeliest token. */
  best: Tensor;
  wanted: Tensor;
  /** Which edit a row is of. */
  edit: Tensor;
}

/**
 * PMET's rule for edits whose wanted token is the likeliest at all of their rows: their NLL counts `factor` times in
 * the next step, which `nll` [E] takes note of (1 for the others), and they stop where the KL, part 1 of the terms, is
 * at most `kl`. To be applied after {@link stopRule}.
 */
export function sureRule(
  ctx: Ctx,
  { best, wanted, edit }: SureRows,
  { terms, active, history }: StopState,
  nll: Tensor,
  { factor, kl }: { factor: number; kl: number },
): void {
  const [, edits, parts] = history.shape;
  ctx.r.dispatch(sureRuleKernel, {
    bind: {
      best: storageOf(best),
      wanted: storageOf(wanted),
      edit: storageOf(edit),
      terms: storageOf(terms),
      factor: storageOf(nll),
      active_: storageOf(active),
    },
    params: { rows: best.shape[0], edits, parts, factor, kl },
    grid: [Math.ceil(edits / 64), 1, 1],
  });
}
