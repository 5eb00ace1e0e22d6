/**
 * When a prompt counts as being about a fact, for memories of several facts (IKE, ICE, SERAC with an encoder): the
 * cosine that tells rewordings from neighbours' prompts best, each record by itself; and with all records in one
 * memory the distance above the third nearest fact. Best is the mean of both rates, on records that are not tested.
 *
 *   deno run -A tools/ike_limit.ts --corpus counterfact.json --skip 100 [--encoder minilm|states|FOLDER] [--model M]
 *     [--limit RECORDS] [--cosine LIMIT] [--margin MARGIN]
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
    cosine: { type: "string" },
    margin: { type: "string" },
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
const row = (at: number) => rows.subarray(at * width, (at + 1) * width);
const cosine = (a: number, b: number) => row(a).reduce((sum, x, d) => sum + x * row(b)[d], 0);
const firsts: number[] = [];
groups.reduce((at, group) => (firsts.push(at), at + group.length), 0);

/** One of a record's other prompts: against its own fact, and against all of them. */
const asked = groups.flatMap((group, i) =>
  group.slice(1).map((_, j) => {
    const all = firsts.map((key) => cosine(firsts[i] + 1 + j, key));
    const [first, , third = -Infinity] = all.toSorted((a, b) => b - a);
    const same = j < records[i].paraphrases.length;
    return { same, own: all[i], first, apart: first - third, right: all[i] === first };
  })
);
type Asked = (typeof asked)[number];
const shareOf = (list: Asked[], holds: (one: Asked) => boolean) => list.filter(holds).length / list.length;
const [same, others] = [true, false].map((kind) => asked.filter((one) => one.same === kind));
const rates = (inScope: (one: Asked) => boolean) => {
  const inside = shareOf(same, inScope), outside = shareOf(others, (one) => !inScope(one));
  return { inside, outside, mean: (inside + outside) / 2 };
};
const best = (at: number[], rule: (value: number) => (one: Asked) => boolean) =>
  at.map((value) => ({ value, ...rates(rule(value)) })).reduce((a, b) => b.mean > a.mean ? b : a);
const told = ({ inside, outside }: { inside: number; outside: number }) =>
  `in scope ${(100 * inside).toFixed(1)} %, out of scope ${(100 * outside).toFixed(1)} %`;
const steps = Array.from({ length: 99 }, (_, i) => (i + 1) / 100);

const own = best(steps, (limit) => ({ own }) => own >= limit);
console.log(`${records.length} records, ${same.length} rewordings, ${others.length} neighbours`);
console.log(`each by itself: limit ${own.value}, ${told(own)}`);
const limit = values.cosine === undefined ? own.value : Number(values.cosine);
const alone = rates(({ right, same, first }) => (right || !same) && first >= limit);
console.log(`in one memory, limit ${limit} alone: ${told(alone)}`);
const margin = best(
  values.margin === undefined ? steps : [Number(values.margin)],
  (margin) => ({ right, same, first, apart }) => (right || !same) && first >= limit && apart >= margin,
);
console.log(`in one memory, limit ${limit} and margin ${margin.value}: ${told(margin)}`);
