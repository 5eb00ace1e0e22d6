/**
 * MEMIT and its kin from texts on: requests are checked and tokenised in their contexts, requests about one subject
 * are found, and {@link editTokenised} does the rest.
 */
import type { Model } from "../engine/models/model.ts";
import type { ClosedFormHparams } from "./closed_form_hparams.ts";
import { contextGroups, contexts } from "./contexts.ts";
import type { Edit, EditOutcome } from "./edit.ts";
import { requireLayers } from "./hparams.ts";
import { bySubject, type EditRequest, requireConsistent, validateRequest } from "./requests.ts";
import { type EditOptions, romeTarget } from "./rome.ts";
import { type ClosedForm, editTokenised, type TokenisedEdits } from "./spread.ts";
import type { Target } from "./targets.ts";

/** Contexts of MEMIT and its kin start from five words, whatever the model. */
export const CONTEXT_START = "words";

/**
 * Edits all requests at once. The model is left as it was.
 * @throws {InputError} for contradicting requests, a layer that is not there, one edit over the memory budget
 */
export async function closedForm<H extends ClosedFormHparams>(
  model: Model,
  requests: readonly EditRequest[],
  method: ClosedForm<H>,
  options: EditOptions<H>,
): Promise<Edit> {
  const { hparams, seed = 0 } = options;
  requireLayers(model, hparams.layers);
  const valid = requests.map((r, i) =>
    validateRequest(r, requests.length > 1 ? `Request ${i + 1}` : undefined)
  );
  requireConsistent(valid);
  const texts = await contexts(model, hparams.context_template_length_params, seed, CONTEXT_START);
  const subjects = bySubject(valid);
  const edits: TokenisedEdits = {
    wanted: valid.map((request) => romeTarget(model, request, texts)),
    subjects,
    groups: contextGroups(hparams.context_template_length_params),
  };
  const { targets, ...made } = await editTokenised(model, edits, method, options);
  return {
    method: method.name,
    hparams: { ...hparams },
    requests: valid,
    outcomes: outcomesOf(valid, subjects, targets),
    ...made,
  };
}

function outcomesOf(
  requests: readonly EditRequest[],
  subjects: readonly number[][],
  targets: readonly Target[],
): EditOutcome[] {
  const outcomes: EditOutcome[] = [];
  subjects.forEach((group, s) => {
    const { losses } = targets[s];
    const warnings = group.length > 1
      ? [
        `Requests ${group.map((i) => i + 1).join(", ")} are about "${
          requests[group[0]].subject
        }": one change serves all`,
      ]
      : [];
    for (const i of group) outcomes[i] = { steps: losses.length, losses, warnings };
  });
  return outcomes;
}
