/**
 * MEMIT, Mass-Editing Memory in a Transformer (Meng et al. 2023; guide section 5): many facts at once, spread over
 * several layers.
 *
 *   ΔW = R Kᵀ (λC + KKᵀ)⁻¹ = R (λI + KᵀC⁻¹K)⁻¹ (C⁻¹K)ᵀ      R = (Z − H)/(layers left)
 *
 * MEMIT_seq (Fang et al. 2025's baseline) also keeps the keys K_p of earlier edits of a sequence as they are:
 * K is [K_p, K] and R is [0, R].
 */
import { gramSolve, gramSolveOn } from "../engine/linalg/gram.ts";
import type { MemitHparams } from "./closed_form_hparams.ts";
import { updateBesidePast } from "./past_keys.ts";
import type { ClosedForm, LayerProblem, LayerUpdate } from "./spread.ts";

/** Columns from which the n×n system is solved on the device. */
export const MANY = 600;

/** MEMIT's update. */
export const MEMIT: ClosedForm<MemitHparams> = {
  name: "memit",
  site: "out",
  divisor: (left) => left,
  update: (problem) => solveWithC(problem, problem.hparams.mom2_update_weight),
};

/** MEMIT with the keys of earlier edits in the bracket. */
export const MEMIT_SEQ: ClosedForm<MemitHparams> = {
  name: "memit-seq",
  site: "out",
  divisor: (left) => left,
  remembers: true,
  update(problem) {
    const { layer, hparams: { mom2_update_weight: lambda, mom2_jitter } } = problem;
    return updateBesidePast(problem, {
      name: `C⁻¹, λ = ${lambda}`,
      lambda,
      times: (keys, count) => problem.statistics.solve(layer, keys, count, mom2_jitter),
    });
  },
};

/**
 * ΔW = R (λI + KᵀC⁻¹K)⁻¹ (C⁻¹K)ᵀ
 * @param lambda λ, or how it follows from the mean of the diagonal of KᵀC⁻¹K
 */
export async function solveWithC<H extends { mom2_jitter: number }>(
  { model, layer, n, keys, residuals, statistics, hparams }: LayerProblem<H>,
  lambda: number | ((diagonal: number) => number),
): Promise<LayerUpdate> {
  const mKeys = await statistics.solve(layer, keys, n, hparams.mom2_jitter);
  const diagonal = keys.reduce((sum, k, i) => sum + k * mKeys[i], 0) / n;
  const problem = {
    ...{ n, keys, mKeys, residuals },
    lambda: typeof lambda === "number" ? lambda : lambda(diagonal),
  };
  return n < MANY ? gramSolve(problem) : await gramSolveOn(model.gpu, problem);
}
