/**
 * EMMET, Equality-constrained Mass Model Editing (Gupta et al. 2024, arXiv 2403.14236; guide section 7): as MEMIT, but
 * the new values are constraints, W'K = V, not a term of a sum.
 *
 *   emmet            ΔW = R (KᵀC⁻¹K)⁻¹ (C⁻¹K)ᵀ          the paper's; a relative jitter is on the diagonal
 *   emmet-released   ΔW = R (KᵀC⁻¹K + w·ε·I)⁻¹ (C⁻¹K)ᵀ   the authors' code for n > 1: MEMIT with λ = w·ε
 */
import type { EmmetHparams, EmmetReleasedHparams } from "./closed_form_hparams.ts";
import { solveWithC } from "./memit.ts";
import type { ClosedForm } from "./spread.ts";

/** With its constraints met. */
export const EMMET: ClosedForm<EmmetHparams> = {
  name: "emmet",
  site: "out",
  divisor: (left) => left,
  update: (problem) => solveWithC(problem, (diagonal) => problem.hparams.emmet_jitter * diagonal),
};

/** The released code's update; a single edit has no ε there, so it is an equality. */
export const EMMET_RELEASED: ClosedForm<EmmetReleasedHparams> = {
  name: "emmet-released",
  site: "out",
  divisor: (left) => left,
  update(problem) {
    const { mom2_update_weight: w, emmet_lambda: epsilon } = problem.hparams;
    return solveWithC(problem, problem.n > 1 ? w * epsilon : 0);
  },
};
