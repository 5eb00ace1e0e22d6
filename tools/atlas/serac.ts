/**
 * Trains atlas' SERAC editor on atlas' own facts and writes atlas/editors/serac.safetensors. Subjects of the
 * evaluation sets (counterfact.json, zsre.json) are left out: nothing that is measured was seen.
 *
 *   deno run -A tools/atlas/serac.ts [--out FILE] [--adapter-steps N] [--scope-steps N]
 */
import { parseArgs } from "node:util";
import { atlasData, atlasFolder } from "../../atlas/mod.ts";
import { stateEncoder } from "../../editors/prompts/encoders.ts";
import type { SeracRecord } from "../../editors/serac/data.ts";
import { writeSerac } from "../../editors/serac/file.ts";
import { SERAC_TRAINING, trainSerac } from "../../editors/serac/train.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";

const { values } = parseArgs({
  options: {
    out: { type: "string", default: "atlas/editors/serac.safetensors" },
    "adapter-steps": { type: "string", default: String(SERAC_TRAINING.adapter.steps) },
    "scope-steps": { type: "string", default: String(SERAC_TRAINING.scope.steps) },
  },
});

const read = async (name: string) => JSON.parse(await atlasData(name));
const facts: [subject: string, relation: string, object: string][] = await read("facts.json");
const relations: Record<string, { statements: string[]; questions: string[] }> = await read("relations.json");
const tested = new Set<string>([
  ...(await read("counterfact.json")).map((r: { requested_rewrite: { subject: string } }) =>
    r.requested_rewrite.subject
  ),
  ...(await read("zsre.json")).map((r: { subject: string }) => r.subject),
]);
const objects = Map.groupBy(facts, ([, relation]) => relation);
const records = facts.filter(([subject]) => !tested.has(subject)).map(
  ([subject, kind, object]): SeracRecord => {
    const { statements, questions } = relations[kind];
    return {
      subject,
      kind,
      answer: object,
      wordings: [...statements, ...questions].map((template) => template.replace("{}", () => subject)),
      targets: [...new Set(objects.get(kind)!.map(([, , o]) => o))].filter((o) => o !== object),
    };
  },
);

using gpu = await Gpu.open();
using model = await loadModel(gpu, await atlasFolder());
const begun = performance.now();
const encoder = stateEncoder(model, [0, 1, 2]);
const editor = await trainSerac(
  model,
  encoder,
  records,
  "atlas' facts without the subjects of its evaluation sets",
  {
    ...SERAC_TRAINING,
    scope: { ...SERAC_TRAINING.scope, steps: Number(values["scope-steps"]) },
    adapter: { ...SERAC_TRAINING.adapter, steps: Number(values["adapter-steps"]) },
    onProgress(part, done, total, loss) {
      const time = ((performance.now() - begun) / 1000).toFixed(0);
      console.log(
        `${part} ${done}/${total}${loss === undefined ? "" : `, loss ${loss.toFixed(4)}`}, ${time} s`,
      );
    },
  },
);
await Deno.mkdir(values.out.replace(/[^/]*$/, "") || ".", { recursive: true });
await writeSerac(values.out, editor);
console.log(`${records.length} facts; written: ${values.out} (${(await Deno.stat(values.out)).size} bytes)`);
