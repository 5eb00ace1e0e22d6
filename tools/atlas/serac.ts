/**
 * Trains atlas' SERAC editors on atlas' own facts and writes atlas/editors/serac.safetensors (by the original's
 * objective) or serac-easyedit.safetensors. Subjects of the evaluation sets (counterfact.json, zsre.json) are left
 * out: nothing that is measured was seen. By EasyEdit's objective the counterfactual model goes on from the
 * original's: it can read edits from the start, as the small language models can that EasyEdit takes.
 *
 *   deno run -A tools/atlas/serac.ts [--objective original|easyedit] [--out FILE]
 */
import { parseArgs } from "node:util";
import { atlasFolder } from "../../atlas/mod.ts";
import { stateEncoder } from "../../editors/prompts/encoders.ts";
import { findSerac, writeSerac } from "../../editors/serac/file.ts";
import {
  EASYEDIT_TRAINING,
  type Progress,
  SERAC_TRAINING,
  trainSerac,
  trainSeracEasyEdit,
} from "../../editors/serac/train.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import { atlasSeracRecords } from "../../training/serac_records.ts";

const { values } = parseArgs({
  options: {
    objective: { type: "string", default: "original" },
    out: { type: "string" },
  },
});

const records = await atlasSeracRecords();
using gpu = await Gpu.open();
using model = await loadModel(gpu, await atlasFolder());
const begun = performance.now();
const encoder = stateEncoder(model, [0, 1, 2]);
const onProgress: Progress = (part, done, total, loss) => {
  const time = ((performance.now() - begun) / 1000).toFixed(0);
  console.log(`${part} ${done}/${total}${loss === undefined ? "" : `, loss ${loss.toFixed(4)}`}, ${time} s`);
};
const data = "atlas' facts without the subjects of its evaluation sets";
const editor = values.objective === "easyedit"
  ? await trainSeracEasyEdit(model, encoder, records, data, {
    ...EASYEDIT_TRAINING,
    start: await findSerac(model, "serac"),
    seed: 0,
    onProgress,
  })
  : await trainSerac(model, encoder, records, data, { ...SERAC_TRAINING, onProgress });
const out = values.out ?? `atlas/editors/${editor.method}.safetensors`;
await Deno.mkdir(out.replace(/[^/]*$/, "") || ".", { recursive: true });
await writeSerac(out, editor);
console.log(`${records.length} facts; written: ${out} (${(await Deno.stat(out)).size} bytes)`);
