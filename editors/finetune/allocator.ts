/**
 * AdaLoRA's rank allocator (Zhang et al. 2023, "Adaptive budget allocation for parameter-efficient fine-tuning",
 * sections 3.2 and 3.3; huggingface/peft 0.21): a budget of ranks that shrinks from init_r to target_r a matrix,
 * given to the triplets (column of P, singular value, column of Q) that matter most.
 */
import type { Ctx } from "../../engine/ops/context.ts";
import { columnDot } from "../../engine/ops/column_scale.ts";
import { AGAIN, keepLargest, type Sensitivity, trackSensitivity } from "../../engine/ops/importance.ts";
import { reshape, type Tensor } from "../../engine/tensor/tensor.ts";

/** The schedule, under peft's names; steps count from 0. */
export interface BudgetSchedule {
  /** Ranks a matrix at the start. */
  init_r: number;
  /** Ranks a matrix at the end, on average over matrices. */
  target_r: number;
  /** Steps before the budget shrinks. */
  tinit: number;
  /** Steps at the end, after the last cut. */
  tfinal: number;
  /** Steps from one cut to the next. */
  deltaT: number;
}

/**
 * How many of the `matrices`·init_r ranks go after each step, for {@link keepLargest}: between tinit and
 * steps − tfinal every deltaT steps, the rest of the budget falling as a cube; then all that the target does not
 * have, and from there on the same again. In between pruned values may grow back.
 */
export function budgetCuts(
  { init_r, target_r, tinit, tfinal, deltaT }: BudgetSchedule,
  matrices: number,
  steps: number,
): Uint32Array {
  const init = init_r * matrices, target = target_r * matrices;
  const last = steps - tfinal;
  return Uint32Array.from({ length: steps }, (_, step) => {
    if (step > last) return AGAIN;
    if (step === last) return init - target;
    if (step <= tinit || step % deltaT !== 0) return 0;
    const left = 1 - (step - tinit) / (last - tinit);
    return init - Math.trunc((init - target) * left ** 3 + target);
  });
}

/** The factors of one matrix: ΔW = P diag(Λ) Qᵀ up to scale. */
export interface Triplets {
  /** [out, r] */
  p: Tensor;
  /** [in, r] */
  q: Tensor;
}

/** What the allocator keeps on the device between steps. */
export interface AllocatorState {
  /** Of every p, of every q, and of all singular values. */
  sensitivity: Map<Tensor, Sensitivity>;
  /** f32 [ranks] */
  scores: Tensor;
  /** u32 [ranks] */
  kept: Tensor;
  /** u32 [steps] */
  cuts: Tensor;
}

/**
 * One step after the update: sensitivities of all factors, from them the scores
 *
 *   S_j = s(Λ_j) + mean over i of s(P_ij) + mean over i of s(Q_ij),   s = mean·spread of the sensitivity
 *
 * and the cut. Singular values of matrix i are `values[i·r …]`.
 */
export function allocate(
  ctx: Ctx,
  matrices: readonly Triplets[],
  values: Tensor,
  { state, clock, grad, beta1, beta2 }: {
    state: AllocatorState;
    clock: Tensor;
    grad: (param: Tensor) => Tensor | undefined;
    beta1: number;
    beta2: number;
  },
): void {
  for (const [param, sensitivity] of state.sensitivity) {
    trackSensitivity(ctx, { param, grad: grad(param)!, beta1, beta2 }, sensitivity);
  }
  const score = (t: Tensor, first: number, alpha: number, accumulate: boolean, shape = t.shape) => {
    const { mean, spread } = state.sensitivity.get(t)!;
    columnDot(ctx, reshape(mean, shape), reshape(spread, shape), state.scores, { first, alpha, accumulate });
  };
  score(values, 0, 1, false, [1, values.shape[0]]);
  matrices.forEach(({ p, q }, i) => {
    for (const t of [p, q]) score(t, i * t.shape[1], 1 / t.shape[0], true);
  });
  const { scores, kept, cuts } = state;
  keepLargest(ctx, { scores, values, kept, cuts, clock });
}
