/**
 * PMET (Li et al. 2024, arXiv 2308.08742; guide section 6): a second vector, added to the attention's output, is
 * optimised beside the MLP's and then thrown away, so that the MLP need not learn what attention contributes.
 *
 *   ΔW = R Kᵀ (λC + KKᵀ)⁻¹      R = (Z_mlp − M)/√(layers left), M the MLP's outputs at the last layer
 *
 * Once the target is the likeliest token at every position the NLL counts a tenth, and an optimisation stops where the
 * KL is small. The authors' code tells it by two equal floats, here it is the tokens that are compared.
 */
import type { PmetHparams } from "./closed_form_hparams.ts";
import { solveWithC } from "./memit.ts";
import type { ClosedForm } from "./spread.ts";

/** What the NLL of a target that is said counts, and the KL at which its optimisation stops; as released. */
const SURE = { factor: 0.1, kl: 0.01 };

/** PMET's targets, spread and update. */
export const PMET: ClosedForm<PmetHparams> = {
  name: "pmet",
  site: "mlp.out",
  target: ({ nll_loss_factor }) => ({ attention: true, nll_loss_factor, sure: SURE }),
  divisor: (left) => Math.sqrt(left),
  update: (problem) => solveWithC(problem, problem.hparams.mom2_update_weight),
};
