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
import { methodNamed } from "../editors/methods.ts";
import { validateRequest } from "../editors/requests.ts";
import { romeTarget, romeUpdate, type RomeVariant } from "../editors/rome.ts";
import { optimiseTargets } from "../editors/targets.ts";
import { Gpu } from "../engine/gpu/device.ts";
import { loadModel } from "../engine/models/load.ts";
import {
  type CounterFactScores,
  counterFactScores,
  harmonicScore,
  readCounterFact,
  requestOf,
} from "../evaluation/counterfact.ts";

interface Line {
  case_id: number;
  steps: number;
  seconds: { edit: number; evaluate: number };
  scores: Record<string, CounterFactScores>;
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

const methods = flags.methods.split(",") as RomeVariant[];
const records = (await readCounterFact(flags.records)).slice(0, Number(flags.limit));
const done = new Map<number, Line>();
for (const line of (await Deno.readTextFile(flags.out).catch(() => "")).split("\n")) {
  if (line) done.set(JSON.parse(line).case_id, JSON.parse(line));
}

const gpu = await Gpu.open();
const model = await loadModel(gpu, await modelPath(flags.model));
const method = methodNamed(methods[0]);
const layers = flags.layer === undefined ? {} : { layers: [Number(flags.layer)] };
const { hparams } = method.parse({ ...method.recipe(model).hparams, ...layers }, "The recipe");
const [layer] = hparams.layers;
const statistics = await findStatistics(model, [layer], { files: flags.stats ? [flags.stats] : [] });
const texts = await contexts(model, hparams.context_template_length_params);

for (const record of records) {
  if (done.has(record.case_id)) continue;
  const start = performance.now();
  const scores: Record<string, CounterFactScores> = { unedited: await counterFactScores(model, record) };
  const middle = performance.now();
  const request = validateRequest(requestOf(record));
  const [target] = await optimiseTargets(model, [romeTarget(model, request, texts)], { ...hparams, layer });
  const updates = [];
  for (const name of methods) {
    updates.push({ name, ...await romeUpdate(name, target, (key) => statistics.solve(layer, key)) });
  }
  const edited = performance.now();
  for (const { name, left, right } of updates) {
    using _edit = applyDeltas(model, [{ role: `layer.${layer}.mlp.down`, rank: 1, left, right }]);
    scores[name] = await counterFactScores(model, record);
  }
  const end = performance.now();
  const line: Line = {
    case_id: record.case_id,
    steps: target.losses.length,
    seconds: { edit: (edited - middle) / 1000, evaluate: (end - edited + middle - start) / 1000 },
    scores,
  };
  done.set(record.case_id, line);
  await Deno.writeTextFile(flags.out, JSON.stringify(line) + "\n", { append: true });
  const took = methods.map((m) => `${m} ${scores[m].ES ? "took" : "FAILED"}`).join(", ");
  console.error(`${done.size}/${records.length} case ${record.case_id}: ${line.steps} steps, ${took}`);
}

// Every edit was taken off again: the first record scores the same bits as before the first edit.
const [first] = records;
const again = JSON.stringify(await counterFactScores(model, first));
const restored = again === JSON.stringify(done.get(first.case_id)!.scores.unedited);

const lines = records.map((r) => done.get(r.case_id)!);
const mean = (name: string, key: keyof CounterFactScores) => {
  const values = lines.map((l) => l.scores[name][key]).filter((v) => v !== undefined);
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : NaN;
};
const cell = (x: number) => Number.isNaN(x) ? "–" : (100 * x).toFixed(1);
const keys = ["ES", "PS", "NS", "EM", "PM", "NM", "twoHop"] as const;
console.log(`layer ${layer}, ${lines.length} records, ${gpu.description}; restored exactly: ${restored}`);
console.log(
  `| method | Score | ${keys.join(" | ")} |\n| --- | ${
    [..."x".repeat(keys.length + 1)].map(() => "---").join(" | ")
  } |`,
);
for (const name of ["unedited", ...methods]) {
  const [ES, PS, NS] = [mean(name, "ES"), mean(name, "PS"), mean(name, "NS")];
  console.log(
    `| ${name} | ${cell(harmonicScore(ES, PS, NS))} | ${keys.map((k) => cell(mean(name, k))).join(" | ")} |`,
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
