/** `emend eval`: edits the records of a dataset, measures before and after, and writes a run folder. */
import { Command } from "npm:commander@15.1.0";
import { basename, join } from "node:path";
import { methodNamed } from "../editors/methods.ts";
import { InputError } from "../engine/io/errors.ts";
import type { Dataset } from "../evaluation/cases.ts";
import { readDataset, sampleCases } from "../evaluation/datasets/read.ts";
import { evaluate, type Extra, EXTRAS, runPath } from "../evaluation/evaluate.ts";
import type { RunConfig } from "../evaluation/records.ts";
import { checkRunFolder } from "../evaluation/run_folder.ts";
import { printSummary } from "./eval_print.ts";
import { budgetsOf, type FirewallFlags } from "./firewall.ts";
import { readGivenHparams, resolveHparams } from "./hparams.ts";
import { collect, number } from "./inputs.ts";
import { lintDataset } from "./lint.ts";
import { methodList } from "./methods.ts";
import { openSession } from "./model.ts";
import { printJson, progress } from "./terminal.ts";

interface Flags extends FirewallFlags {
  model?: string;
  method: string;
  dataset: string;
  limit?: string;
  seed?: string;
  batch: string;
  sequential?: boolean;
  metrics: string;
  target: string;
  hparams?: string;
  set: string[];
  editor?: string;
  stats: string[];
  out?: string;
  resume?: boolean;
  cacheTargets?: boolean;
  shard?: string;
  lint?: boolean;
  json?: boolean;
}

const EXAMPLE = `
Examples:
  deno run -A cli.ts eval --model atlas --method r-rome --dataset atlas --limit 50 --out runs/atlas
  deno run -A cli.ts eval --dataset counterfact.json --lint
  deno run -A cli.ts report runs/atlas --out report.html

Protocols: one edit at a time, undone after each (the default); --batch B: B together, undone; --sequential: edits
stay and all cases are read again at the end; both: B at a time, and they stay.

Metrics beside teacher forcing and ranking, which are always taken: generate (greedy texts), drift (the model
elsewhere), fluency (100 sampled tokens a generation prompt; slow). --metrics none for none of them.

Methods:
${methodList()}`;

export function evalCommand(): Command {
  return new Command("eval")
    .description("Edit the records of a dataset one by one, and measure what each edit did")
    .option("--model <M>", "a model folder, a .gguf file, or atlas")
    .option("--method <name>", "the editing method; r-rome is recommended", "r-rome")
    .requiredOption("--dataset <D>", "a file whose layout is recognised, or atlas, counterfact, zsre")
    .option("--limit <n>", "so many records; without it all")
    .option(
      "--seed <n>",
      "draw the records at random with this seed, and seed the sampling; without it in order",
    )
    .option("--batch <B>", "edit B records together", "1")
    .option("--sequential", "leave edits on the model")
    .option("--metrics <list>", "generate, drift, fluency, none", "generate,drift")
    .option(
      "--target <t>",
      "zsRE: edit to alt, the counterfactual, or to the right answer (ROME's way)",
      "alt",
    )
    .option("--hparams <file>", "hyper-parameters: JSON, or EasyEdit's YAML")
    .option("--set <key=value>", "one hyper-parameter; may be repeated", collect, [])
    .option("--editor <path>", "a trained editor: the folder of its training, or its file")
    .option("--stats <file>", "statistics of the edited layer; may be repeated", collect, [])
    .option("--max-drift <nats>", "firewall: mean KL on neutral prompts at most")
    .option("--max-norm-growth <share>", "firewall: growth of a weight's norm at most; 0.01 is 1 %")
    .option("--keep <prompt>", "firewall: its next token must stay; may be repeated", collect, [])
    .option("--keep-pack <file>", "firewall: the probes to keep of this pack must hold (see emend test)")
    .option("--out <dir>", "the run's folder; without it runs/MODEL-METHOD-DATASET")
    .option("--resume", "go on with the run in that folder")
    .option(
      "--cache-targets",
      "keep optimised targets, and take those of earlier runs; editing time then lies",
    )
    .option("--shard <i/n>", "only the i-th of n parts, 1/n to n/n, into a folder of its own")
    .option("--lint", "check the records and stop")
    .option("--json", "print the summary as one JSON object")
    .addHelpText("after", EXAMPLE)
    .action((flags: Flags) => runEval(flags));
}

async function runEval(flags: Flags): Promise<void> {
  const method = methodNamed(flags.method);
  const batch = number("--batch", flags.batch, 1, 1e5, true);
  const limit = flags.limit === undefined ? undefined : number("--limit", flags.limit, 1, 1e9, true);
  const seed = flags.seed === undefined ? undefined : number("--seed", flags.seed, 0, 2 ** 32 - 1, true);
  const extras = parseExtras(flags.metrics);
  const shard = parseShard(flags.shard, flags.sequential === true);
  const given = await readGivenHparams(method, flags);
  const budgets = await budgetsOf(flags);
  const dataset = await readWithProgress(flags);
  if (flags.lint) return await lintDataset(dataset, sampleCases(dataset, { limit, seed }), flags);
  if (flags.model === undefined) {
    throw new InputError("--model is missing", { hint: "Only --lint works without" });
  }
  const modelName = basename(flags.model);
  const out = flags.out ?? join("runs", [modelName, method.name, basename(flags.dataset)].join("-"));
  await checkRunFolder(runPath(out, shard), flags.resume === true);

  const note = (text: string) => console.error(text);
  using session = await openSession(flags.model);
  const { model } = session;
  const { hparams, source } = resolveHparams(method, model, given, note);
  const changed = Object.keys({ ...given.fileValues, ...given.settings }).length > 0;
  const recipe = changed ? `${source}, with values of the user's` : source;
  using editing = progress("Editing and reading");
  using retaining = progress("Reading all again");
  const summary = await evaluate(model, {
    ...{ method, hparams, recipe, dataset, limit, seed, batch, extras, out, shard, modelName, note, budgets },
    sequential: flags.sequential,
    statistics: flags.stats,
    resume: flags.resume,
    cacheTargets: flags.cacheTargets,
    onProgress: (done, total, stage) => (stage === "edit" ? editing : retaining).update(done, total),
  });
  for (const bar of [editing, retaining]) bar[Symbol.dispose]();
  const written = runPath(out, shard);
  if (flags.json) printJson({ ...summary, written });
  else printSummary(summary, written);
  if (summary.not_made?.cases === summary.cases) Deno.exitCode = 1;
}

async function readWithProgress({ dataset, target }: Flags): Promise<Dataset> {
  if (target !== "alt" && target !== "answer") {
    throw new InputError(`--target wants alt or answer, got "${target}"`);
  }
  using bar = progress("Fetching the dataset");
  return await readDataset(dataset, { target, progress: (done, total) => total && bar.update(done, total) });
}

/** The readings that --metrics asks for. */
function parseExtras(list: string): Extra[] {
  const names = list.split(",").map((name) => name.trim()).filter((name) => name && name !== "none");
  const unknown = names.find((name) => !EXTRAS.some((extra) => extra === name));
  if (unknown) {
    throw new InputError(`There are no metrics "${unknown}"`, { hint: `There are ${EXTRAS.join(", ")}` });
  }
  return names as Extra[];
}

/** @throws {InputError} when it is not i/n with 1 ≤ i ≤ n, or the protocol cannot be split */
function parseShard(text: string | undefined, sequential: boolean): RunConfig["shard"] {
  if (text === undefined) return undefined;
  const [, index, of] = text.match(/^(\d+)\/(\d+)$/)?.map(Number) ?? [];
  if (!(index >= 1 && index <= of)) {
    throw new InputError(`--shard wants i/n with i from 1 to n, got "${text}"`);
  }
  if (sequential) {
    throw new InputError("A sequential run cannot be split: each edit stands on those before it", {
      hint: "Leave --shard or --sequential away",
    });
  }
  return { index, of };
}
