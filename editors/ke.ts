/**
 * KE (De Cao et al. 2021, "Editing factual knowledge in language models"; memory-and-meta guide section 3). `ke` is the
 * authors': every matrix of the blocks, the constrained objective, and at an edit the same change up to five times
 * while the new answer is not given. `ke-efk` is what published tables of decoders have: the variant "EFK" of MEND's
 * authors, trained with MEND's loss on MEND's maps (section 3.6). Training them is `emend train`; the network is in
 * hypernetworks/ke_network.ts, the objective in hypernetworks/ke_objective.ts.
 */
import { z } from "npm:zod@4.6.7";
import { generate } from "../engine/models/generate.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { applyDeltas, type WeightDelta } from "./edit.ts";
import { editorKind } from "./hypernetworks/kinds.ts";
import { trainedMethod, trainedSchema } from "./hypernetworks/method.ts";
import { parseHparams, requireKeys } from "./hparams.ts";
import type { Method } from "./methods.ts";
import { type EditRequest, tokeniseRequest } from "./requests.ts";

/** Needs an editor trained for the very model. */
export const keEfk = trainedMethod(
  editorKind("ke-efk"),
  "KE, EFK variant (De Cao et al. 2021; Mitchell et al. 2022): an LSTM reads the edit and gates its gradient",
);

const keSchema = trainedSchema.extend({
  /** How often the change is made at most, while an answer is not the new one; the authors' "loop" is 5. */
  loop: z.number().int().min(1).max(5).default(1),
});

type KeHparams = z.infer<typeof keSchema>;

const once = trainedMethod(
  editorKind("ke"),
  "KE (De Cao et al. 2021): an LSTM reads the edit and gates its gradient, trained under a bound on all else",
);

/** Needs an editor trained for the very model. */
export const ke: Method<KeHparams> = {
  ...once,
  parse: (values, source) => parseHparams(keSchema, values, source),
  requireKeys: (keys) => requireKeys("ke", keSchema, keys),
  async run(model, requests, options) {
    const edit = await once.run(model, requests, options);
    let times = 1;
    while (times < options.hparams.loop && !await given(model, edit.requests, repeated(edit.deltas, times))) {
      times++;
    }
    return {
      ...edit,
      deltas: repeated(edit.deltas, times),
      outcomes: edit.outcomes.map((outcome) => ({ ...outcome, steps: times })),
    };
  },
};

/** The same change `times` over. */
function repeated(deltas: readonly WeightDelta[], times: number): WeightDelta[] {
  const over = (side: Float32Array) => times === 1 ? side : side.map((x) => times * x);
  return deltas.map((delta) => ({
    ...delta,
    left: over(delta.left),
    dense: delta.dense && over(delta.dense),
  }));
}

/** Whether the model changed so gives every new answer, greedily. */
async function given(
  model: LoadedModel,
  requests: readonly EditRequest[],
  deltas: readonly WeightDelta[],
): Promise<boolean> {
  const asked = requests.map((request) => tokeniseRequest(model, request));
  using _changed = applyDeltas(model, deltas);
  const maxTokens = Math.max(...asked.map(({ target }) => target.length));
  const said = await generate(model, asked.map(({ prompt }) => prompt.ids), { maxTokens, stop: [] });
  return asked.every(({ target }, i) => target.every((id, t) => said[i][t] === id));
}
