/** The editor that comes with atlas: it makes edits that it was never trained on. */
import { deepEqual, match, ok } from "node:assert/strict";
import { editorBase, findEditor, readEditor, requireFit } from "../../../editors/hypernetworks/file.ts";
import { editorKind } from "../../../editors/hypernetworks/kinds.ts";
import { validate } from "../../../editors/hypernetworks/validate.ts";
import { methodNamed } from "../../../editors/methods.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { atlasSources } from "../../../training/atlas.ts";
import { exampleAt, tokenise } from "../../../training/source.ts";
import { withGpu } from "../../_gpu.ts";
import { ATLAS } from "../../cli/_run.ts";

Deno.test(
  "atlas' MEND editor edits held-out facts, their other wordings too, and leaves others alone",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const path = await findEditor(model, "mend");
    const { head, numbers } = await readEditor(path);
    requireFit(path, head, await editorBase(model), "mend");
    using network = editorKind("mend").network(model, head.roles, head.shape, numbers);
    const { validation } = await atlasSources();
    const groups = Array.from(
      { length: 40 },
      (_, i) => [tokenise(model.tokenizer, exampleAt(validation, 5, i), model.dims.maxPositions)],
    );
    const { edit, paraphrase, locality } = await validate(model, network, groups, { c_edit: 1, c_loc: 1 });
    // On all 228 held-out facts it has 98, 95 and 90 %; 40 of them are within 10 points of that.
    ok(edit >= 0.9 && paraphrase >= 0.85 && locality >= 0.8, `${edit}, ${paraphrase}, ${locality}`);
  }),
);

Deno.test(
  "more edits at once than the editor was trained with come with a warning",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const { run } = methodNamed("mend");
    const request = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" };
    const other = { ...request, subject: "Francesco Algarotti" };
    const [alone, together] = await Promise.all(
      [[request], [request, other]].map((requests) => run(model, requests, { hparams: { layers: [] } })),
    );
    deepEqual(alone.outcomes[0].warnings, []);
    deepEqual(together.outcomes.map(({ warnings }) => warnings.length), [1, 0]);
    match(together.outcomes[0].warnings[0], /trained to make one edit at once, not 2/);
  }),
);
