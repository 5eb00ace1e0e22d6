/** The margins of a side memory (WISE), and when its training ends, without readback. */
import { GpuError } from "../gpu/errors.ts";
import { marginsKernel } from "../kernels/margins.ts";
import { describe, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, temp } from "./context.ts";

/** The state of training; all of it outlives the plan. */
export interface MarginState {
  /** f32 [steps, 2]: the language-model loss and that of the margins, step by step. */
  history: Tensor;
  /** f32 [3]: the last loss, the one before it, the mean distance of the edit's texts. Starts as 1e9, 0, 0. */
  progress: Tensor;
  /** u32 [2]: steps so far; 1 + the step of a loss that is not finite. Starts as zeros. */
  flags: Tensor;
  /** u32 [1]: 0 while training goes on. Record the updates under it. Starts as 0. */
  done: Tensor;
}

/** α, β and γ of the margins, and when a loss counts as arrived. */
export interface Margins {
  alpha: number;
  beta: number;
  gamma: number;
  /** Training ends where the last loss was at most `low` and within `still` of the one before. */
  still: number;
  low: number;
}

/**
 * [D_o − D_e + γ]₊ + [D_o − α]₊ + [β − D_e]₊, each averaged over its positive entries, for distances D f32 [E + 1]:
 * those of E texts of an edit, and last that of another text. Gradient to D. `terms` are summed up to the
 * language-model loss.
 * @throws {GpuError} when there is no text of the edit
 */
export function margins(ctx: Ctx, D: Tensor, terms: Tensor, state: MarginState, limits: Margins): void {
  const count = D.shape[0];
  if (count < 2) throw new GpuError(`Cannot hold ${describe(D)} apart: it is one text`);
  const pull = temp(ctx, "pull", D.shape);
  ctx.r.dispatch(marginsKernel, {
    bind: {
      dist: storageOf(D),
      terms: storageOf(terms),
      pull: storageOf(pull),
      history: storageOf(state.history),
      progress: storageOf(state.progress),
      flags: storageOf(state.flags),
      done: storageOf(state.done),
    },
    params: { inside: count - 1, count: terms.shape[0], ...limits },
    grid: [1, 1, 1],
  });
  if (ctx.tape?.needs(D)) ctx.tape.setGrad(D, pull);
}
