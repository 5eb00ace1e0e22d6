/**
 * The cosine from which on a prompt counts as being about a fact, for memories of several facts (IKE, ICE, SERAC
 * with an encoder): the one that tells rewordings from neighbours' prompts best, by the mean of both rates, on
 * records that are not tested.
 *
 *   deno run -A tools/ike_limit.ts --corpus counterfact.json --skip 100 [--encoder minilm|states|FOLDER] [--model M]
 */
import { parseArgs } from "node:util";
import { atlasFolder } from "../atlas/mod.ts";
import { readCorpus } from "../editors/ike_corpus.ts";
import { centred, encoderNamed, meanRow } from "../editors/prompts/encoders.ts";
import { Gpu } from "../engine/gpu/device.ts";
import { loadModel } from "../engine/models/load.ts";

const { values } = parseArgs({
  options: {
    corpus: { type: "string" },
    skip: { type: "string", default: "0" },
    limit: { type: "string", default: "150" },
    encoder: { type: "string", default: "minilm" },
    model: { type: "string", default: "atlas" },
  },
});
if (!values.corpus) throw new Error("--corpus FILE is missing");
const records = (await readCorpus(values.corpus, Number(values.skip))).slice(0, Number(values.limit));
using gpu = await Gpu.open();
using model = await loadModel(gpu, values.model === "atlas" ? await atlasFolder() : values.model);
const encoder = await encoderNamed(model, values.encoder);
const { width } = encoder;
const groups = records.map(({ prompt, paraphrases, neighbours }) => [
  prompt,
  ...paraphrases,
  ...neighbours.map((n) => n.prompt),
]);
const raw = await encoder.embed(groups.flat());
const rows = encoder.name.kind === "states" ? centred(raw, width, meanRow(raw, width)) : raw;
const cosines: { value: number; same: boolean }[] = [];
let at = 0;
for (const [i, group] of groups.entries()) {
  const row = (j: number) => rows.subarray((at + j) * width, (at + j + 1) * width);
  const key = row(0);
  for (let j = 1; j < group.length; j++) {
    const value = row(j).reduce((sum, x, d) => sum + x * key[d], 0);
    cosines.push({ value, same: j <= records[i].paraphrases.length });
  }
  at += group.length;
}
const same = cosines.filter((c) => c.same).map((c) => c.value);
const others = cosines.filter((c) => !c.same).map((c) => c.value);
const rate = (list: number[], holds: (x: number) => boolean) => list.filter(holds).length / list.length;
const scored = Array.from({ length: 99 }, (_, i) => (i + 1) / 100).map((limit) => {
  const inside = rate(same, (x) => x >= limit), outside = rate(others, (x) => x < limit);
  return { limit, inside, outside, mean: (inside + outside) / 2 };
});
const best = scored.reduce((a, b) => b.mean > a.mean ? b : a);
console.log(
  `${records.length} records, ${same.length} rewordings, ${others.length} neighbours: limit ${best.limit}, ` +
    `in scope ${(100 * best.inside).toFixed(1)} %, out of scope ${(100 * best.outside).toFixed(1)} %`,
);
