/**
 * The CounterFact table of docs/results.md: ROME, R-ROME and p-ROME on the same records, each edit alone. The
 * variants share their target optimisation (it is the same δ), so a record is optimised once. Appends one
 * line a record, so an interrupted run goes on.
 *
 *   deno run -A tools/counterfact.ts --model M --records FILE --limit 50 --out RUN.jsonl
 *       [--layer N] [--methods rome,r-rome] [--stats FILE]
 */
import { Command } from "npm:commander@15.1.0";
import { modelPath } from "../cli/model.ts";
import { contexts } from "../editors/contexts.ts";
import { applyDeltas } from "../editors/edit.ts";
import { findStatistics } from "../editors/find_statistics.ts";
import { parseHparams, romeSchema } from "../editors/hparams.ts";
import { romeRecipe } from "../editors/recipes.ts";
import { romeTarget, romeUpdate, type RomeVariant } from "../editors/rome.ts";
import { optimiseTargets } from "../editors/targets.ts";
import { Gpu } from "../engine/gpu/device.ts";
import { loadModel } from "../engine/models/load.ts";
import type { EditCase } from "../evaluation/cases.ts";
import { readDataset, sampleCases } from "../evaluation/datasets/read.ts";
import { harmonicScore, scoreCase } from "../evaluation/metrics/index.ts";
import { readCase } from "../evaluation/readings.ts";
import type { Metrics, Readings } from "../evaluation/records.ts";

interface Line {
  case_id: string;
  steps: number;
  seconds: { edit: number; evaluate: number };
  scores: Record<string, Metrics>;
}

const flags = new Command()
  .requiredOption("--model <M>")
  .requiredOption("--records <file>")
  .requiredOption("--out <file>")
  .option("--limit <n>", "", "50")
  .option("--layer <n>")
  .option("--methods <list>", "", "rome,r-rome")
  .option("--stats <file>")
  .parse(Deno.args, { from: "user" }).opts();

const COLUMNS = ["ES", "PS", "NS", "EM", "PM", "NM", "rank.reasoning"] as const;
const methods = flags.methods.split(",") as RomeVariant[];
const cases = sampleCases(await readDataset(flags.records), { limit: Number(flags.limit) });
const done = new Map<string, Line>();
for (const line of (await Deno.readTextFile(flags.out).catch(() => "")).split("\n")) {
  if (line) done.set(JSON.parse(line).case_id, JSON.parse(line));
}

const gpu = await Gpu.open();
const model = await loadModel(gpu, await modelPath(flags.model));
const layers = flags.layer === undefined ? {} : { layers: [Number(flags.layer)] };
const { hparams } = parseHparams(
  romeSchema,
  { ...romeRecipe(model.config).hparams, ...layers },
  "The recipe",
);
const [layer] = hparams.layers;
const statistics = await findStatistics(model, [layer], { files: flags.stats ? [flags.stats] : [] });
const texts = await contexts(model, hparams.context_template_length_params);

/** The scores of the paper, and two hops. */
function scoresOf(one: EditCase, before: Readings, after: Readings): Metrics {
  const all: Metrics = scoreCase(one, before, after);
  return Object.fromEntries(
    COLUMNS.filter((name) => all[name] !== undefined).map((name) => [name, all[name]]),
  );
}
const read = (one: EditCase) => readCase(model, one, { generate: false, texts: false }, 0);

for (const one of cases) {
  if (done.has(one.id)) continue;
  const start = performance.now();
  const before = await read(one);
  const scores: Record<string, Metrics> = { unedited: scoresOf(one, before, before) };
  const middle = performance.now();
  const [request] = one.requests;
  const [target] = await optimiseTargets(model, [romeTarget(model, request, texts)], { ...hparams, layer });
  const updates = [];
  for (const name of methods) {
    updates.push({
      name,
      ...await romeUpdate(name, target, (key) => statistics.solve(layer, key, 1, hparams.mom2_jitter)),
    });
  }
  const edited = performance.now();
  for (const { name, left, right } of updates) {
    using _edit = applyDeltas(model, [{ role: `layer.${layer}.mlp.down`, rank: 1, left, right }]);
    scores[name] = scoresOf(one, before, await read(one));
  }
  const end = performance.now();
  const line: Line = {
    case_id: one.id,
    steps: target.losses.length,
    seconds: { edit: (edited - middle) / 1000, evaluate: (end - edited + middle - start) / 1000 },
    scores,
  };
  done.set(one.id, line);
  await Deno.writeTextFile(flags.out, JSON.stringify(line) + "\n", { append: true });
  const took = methods.map((m) => `${m} ${scores[m].ES ? "took" : "FAILED"}`).join(", ");
  console.error(`${done.size}/${cases.length} case ${one.id}: ${line.steps} steps, ${took}`);
}

// Every edit was taken off again: the first record scores the same bits as before the first edit.
const [first] = cases;
const reading = await read(first);
const again = JSON.stringify(scoresOf(first, reading, reading));
const restored = again === JSON.stringify(done.get(first.id)!.scores.unedited);

const lines = cases.map(({ id }) => done.get(id)!);
const mean = (name: string, key: string) => {
  const values = lines.map((l) => l.scores[name][key]).filter((v) => v !== undefined);
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : NaN;
};
const cell = (x: number) => Number.isNaN(x) ? "–" : (100 * x).toFixed(1);
console.log(`layer ${layer}, ${lines.length} records, ${gpu.description}; restored exactly: ${restored}`);
console.log(
  `| method | Score | ${COLUMNS.join(" | ")} |\n| --- | ${
    [..."x".repeat(COLUMNS.length + 1)].map(() => "---").join(" | ")
  } |`,
);
for (const name of ["unedited", ...methods]) {
  const [ES, PS, NS] = [mean(name, "ES"), mean(name, "PS"), mean(name, "NS")];
  console.log(
    `| ${name} | ${cell(harmonicScore(ES, PS, NS))} | ${
      COLUMNS.map((k) => cell(mean(name, k))).join(" | ")
    } |`,
  );
}
for (const m of methods) {
  console.log(`${m}: ${lines.filter((l) => l.scores[m].ES === 1).length} of ${lines.length} took`);
}
const seconds = lines.map((l) => l.seconds.edit).sort((a, b) => a - b);
console.log(
  `edit: median ${seconds[seconds.length >> 1].toFixed(1)} s, ${
    (lines.reduce((n, l) => n + l.steps, 0) / lines.length).toFixed(1)
  } steps`,
);
