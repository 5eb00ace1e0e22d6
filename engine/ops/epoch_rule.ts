/**
 * Training without readback: a kernel notes the losses of every batch, decides whether it gets an update, and
 * closes the gate that turns the rest of the replayed epochs into nothing.
 */
import { GpuError } from "../gpu/errors.ts";
import { epochRuleKernel } from "../kernels/training.ts";
import { describe, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

/** The state of training; all of it outlives the plans, and is zero at the start. */
export interface EpochState {
  /** f32 [epochs, examples + 1]: the loss of every example before the epoch's update, and the penalty. */
  history: Tensor;
  /** u32 [1]: epochs done. */
  epoch: Tensor;
  /** f32 [1]: the epoch's mean loss so far. */
  total: Tensor;
  /** u32 [2]: 1 + the epoch, and the example, of the first loss that is not finite. */
  bad: Tensor;
  /** u32 [1]: 0 while this batch is to be followed by its update. Record the update under it. */
  skip: Tensor;
  /** u32 [1]: 0 while training goes on. Record the losses under it. */
  gate: Tensor;
}

/** One batch of {@link epochRule}. */
export interface EpochBatch {
  /** f32 [count]: the losses of its examples divided by count, so that they add up to the batch's mean. */
  terms: Tensor;
  /** f32 [1]: what is added to the loss and not judged. */
  penalty: Tensor;
  /** Its first example. */
  first: number;
  /** Whether the epoch ends with it. */
  closes: boolean;
}

/**
 * Applies the rule: a batch whose mean loss is below the threshold gets no update; training ends with an epoch
 * whose mean loss is, or when all updates were made (the history then has one epoch more: the losses after the
 * last update), or at a loss that is not finite.
 * @param threshold as kmeng01/rome's fine-tuning baseline has it: 0.01
 */
export function epochRule(ctx: Ctx, state: EpochState, batch: EpochBatch, threshold: number): void {
  const { history, epoch, total, bad, skip, gate } = state;
  const [epochs, width] = history.shape;
  const { terms, penalty, first, closes } = batch;
  const count = terms.shape[0];
  if (first + count >= width) {
    throw new GpuError(`${describe(terms)} from ${first} on does not fit ${describe(history)}`);
  }
  ctx.r.dispatch(epochRuleKernel, {
    bind: {
      terms: storageOf(terms),
      penalty: storageOf(penalty),
      history: storageOf(history),
      epoch: storageOf(epoch),
      total: storageOf(total),
      bad: storageOf(bad),
      skip_: storageOf(skip),
      gate_: storageOf(gate),
    },
    params: {
      first,
      count,
      width,
      updates: epochs - 1,
      closes: closes ? 1 : 0,
      share: count / (width - 1),
      threshold,
    },
    grid: [1, 1, 1],
  });
}
