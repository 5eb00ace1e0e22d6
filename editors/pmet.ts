/**
 * PMET (Li et al. 2024, arXiv 2308.08742; guide section 6): a second vector, added to the attention's output, is
 * optimised beside the MLP's and then thrown away, so that the MLP need not learn what attention contributes.
 *
 *   ΔW = R Kᵀ (λC + KKᵀ)⁻¹      R = (Z_mlp − M)/√(layers left), M the MLP's outputs at the last layer
 *
 * The authors' code also lowers the weight of the NLL once the target is the likeliest at every position, and may
 * stop there; here every target stops below the loss that the other methods stop at.
 */
import type { PmetHparams } from "./closed_form_hparams.ts";
import { solveWithC } from "./memit.ts";
import type { ClosedForm } from "./spread.ts";

/** PMET's targets, spread and update. */
export const PMET: ClosedForm<PmetHparams> = {
  name: "pmet",
  site: "mlp.out",
  target: ({ nll_loss_factor }) => ({ attention: true, nll_loss_factor }),
  divisor: (left) => Math.sqrt(left),
  update: (problem) => solveWithC(problem, problem.hparams.mom2_update_weight),
};
