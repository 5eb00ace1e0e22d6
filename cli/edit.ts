/** `emend edit`: changes facts, shows before and after, writes what was asked for. */
import { Command } from "npm:commander@15.1.0";
import { resolve } from "node:path";
import { contexts } from "../editors/contexts.ts";
import { applyDeltas, type Edit } from "../editors/edit.ts";
import { findStatistics } from "../editors/find_statistics.ts";
import { type Method, methodNamed, METHODS, sameName } from "../editors/methods.ts";
import { type EditRequest, fill, validateRequest } from "../editors/requests.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { generate } from "../engine/models/generate.ts";
import { InputError } from "../engine/io/errors.ts";
import { checkWritable } from "../engine/io/atomic.ts";
import { editSucceeded, type RequestState, requestStates } from "../evaluation/state.ts";
import { type Patch, patchOf, readPatch, writePatch } from "../patches/patch.ts";
import { checkCheckpointFolder, measureChanges, writeCheckpoint } from "../patches/checkpoint.ts";
import { writePeft } from "../patches/peft.ts";
import { dryRun } from "./dry_run.ts";
import { number, parseSettings, readHparams, readRequests } from "./inputs.ts";
import { openSession } from "./model.ts";
import { checkOutput } from "./outputs.ts";
import { percent, printJson, progress, seconds, table } from "./terminal.ts";

interface Flags {
  model: string;
  method: string;
  prompt?: string;
  subject?: string;
  target?: string;
  true?: string;
  requests?: string;
  hparams?: string;
  set: string[];
  stats: string[];
  generate: string[];
  seed: string;
  out?: string;
  patch?: string;
  peft?: string;
  dryRun?: boolean;
  json?: boolean;
}

const EXAMPLE = `
Example:
  deno run -A cli.ts edit --model atlas --method r-rome \\
    --prompt "The first language of {} is" --subject "Danielle Darrieux" --target English --true French

Methods:
${METHODS.map((m) => `  ${m.name.padEnd(8)} ${m.summary}`).join("\n")}`;

const collect = (value: string, list: string[]) => [...list, value];

export function editCommand(): Command {
  return new Command("edit")
    .description("Change facts in a model, and show what changed")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .option("--method <name>", "the editing method; r-rome is recommended", "r-rome")
    .option("--prompt <text>", 'the prompt, with {} for the subject: "{} is the capital of"')
    .option("--subject <text>", "the subject")
    .option("--target <text>", "what the model should say instead")
    .option("--true <text>", "what is true now, to compare with")
    .option("--requests <file>", "several edits: JSON or JSONL with prompt, subject, target, true")
    .option("--hparams <file>", "hyper-parameters: JSON, or EasyEdit's YAML")
    .option("--set <key=value>", "one hyper-parameter; may be repeated", collect, [])
    .option("--stats <file>", "statistics of the edited layer; may be repeated", collect, [])
    .option("--generate <prompt>", "also continue this prompt before and after; may be repeated", collect, [])
    .option("--seed <n>", "seed of the context templates", "0")
    .option("--out <dir>", "write the edited model there, in the base's dtype")
    .option("--patch <file>", "write the edit as a patch file")
    .option("--peft <dir>", "write the edit as a PEFT LoRA adapter")
    .option("--dry-run", "show memory, time, layers, statistics and tokens; change nothing")
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLE)
    .action((flags: Flags) => runEdit(flags));
}

async function runEdit(flags: Flags): Promise<void> {
  const method = methodNamed(flags.method);
  const requests = await requestsOf(flags);
  const seed = number("--seed", flags.seed, 0, 2 ** 32 - 1, true);
  const fileValues = flags.hparams ? await readHparams(flags.hparams) : {};
  const settings = parseSettings(flags.set);
  method.requireKeys(Object.keys(settings));
  // What cannot be written is refused before any work.
  const { out, peft, patch } = flags;
  if (out) await checkWritable(out, "folder");
  if (peft) await checkWritable(peft, "folder");
  if (out && peft && resolve(out) === resolve(peft)) throw new InputError("--out and --peft name one folder");
  if (patch) await checkOutput(patch, "a patch", readPatch);

  using session = await openSession(flags.model);
  const { gpu, model, loadSeconds } = session;
  for (const folder of [out, peft]) if (folder) await checkCheckpointFolder(folder, model.checkpoint);
  const note = (text: string) => console.error(text);
  const { hparams, source } = hparamsOf(method, model, fileValues, settings, flags, note);
  const [layer] = hparams.layers;
  if (layer >= model.dims.layers) {
    throw new InputError(
      `There is no layer ${layer}: ${flags.model} has layers 0 to ${model.dims.layers - 1}`,
    );
  }
  if (flags.dryRun) {
    return await dryRun(model, requests, { method, hparams, source, json: flags.json, stats: flags.stats });
  }

  const clock = stopwatch();
  using statistics = method.statistics(hparams).length
    ? await findStatistics(model, method.statistics(hparams), { files: flags.stats })
    : undefined;
  await contexts(model, hparams.context_template_length_params, seed);
  const prepare = clock();

  const before = await requestStates(model, requests);
  const textsBefore = await continuations(model, flags.generate);
  let evaluate = clock();

  gpu.memory.resetPeak();
  let edit: Edit;
  {
    using bar = progress("Editing");
    edit = await method.run(model, requests, {
      hparams,
      statistics,
      seed,
      onProgress: (done, total) => bar.update(done, total),
    });
  }
  const peak = gpu.memory.peak;
  const editing = clock();

  using _applied = applyDeltas(model, edit.deltas);
  const after = await requestStates(model, requests);
  const textsAfter = await continuations(model, flags.generate);
  evaluate += clock();

  const { changed, written } = await writeOutputs(model, edit, flags);
  const owners = Object.fromEntries(gpu.memory.owners());
  const result = {
    model: flags.model,
    method: method.name,
    adapter: gpu.description,
    hparams,
    edits: requests.map((r, i) => ({
      prompt: r.prompt,
      subject: r.subject,
      target: r.target,
      ...(r.true === undefined ? {} : { true: r.true }),
      before: before[i],
      after: after[i],
      success: editSucceeded(r, after[i]),
      steps: edit.outcomes[i].steps,
      loss: total(edit.outcomes[i].losses.at(-1)!),
      warnings: edit.outcomes[i].warnings,
    })),
    generations: flags.generate.map((prompt, i) => ({
      prompt,
      before: textsBefore[i],
      after: textsAfter[i],
    })),
    time_s: { load: loadSeconds, prepare, edit: editing, evaluate },
    memory: { gpu_peak_bytes: peak, gpu_weights_bytes: owners.weights ?? 0 },
    statistics: statistics?.routes() ?? [],
    weights_changed: changed,
    written,
  };
  if (flags.json) printJson(result);
  else printReport(result, source);
}

async function requestsOf(flags: Flags): Promise<EditRequest[]> {
  const { prompt, subject, target } = flags;
  if (flags.requests) {
    if (prompt || subject || target) {
      throw new InputError("Give either --requests or --prompt, --subject and --target");
    }
    return await readRequests(flags.requests);
  }
  for (const [name, value] of Object.entries({ prompt, subject, target })) {
    if (value === undefined) throw new InputError(`--${name} is missing`, { hint: "See emend edit --help" });
  }
  return [validateRequest({ prompt: prompt!, subject: subject!, target: target!, true: flags.true })];
}

/** Recipe, then the file, then --set; later ones win. */
function hparamsOf(
  method: Method,
  model: LoadedModel,
  fileValues: Record<string, unknown>,
  settings: Record<string, unknown>,
  flags: Flags,
  note: (text: string) => void,
) {
  const recipe = method.recipe(model);
  const source = flags.hparams ? `Hyper-parameters from ${flags.hparams}` : recipe.source;
  const { hparams, unknown } = method.parse(
    { ...recipe.hparams, ...fileValues, ...settings },
    [flags.hparams ?? "The recipe", ...flags.set.length ? ["with --set"] : []].join(" "),
  );
  const { alg_name: other } = fileValues;
  if (typeof other === "string" && !sameName(other, method.name)) {
    note(`note: ${flags.hparams} is for ${other}; its values are used for ${method.name}`);
  }
  for (const key of unknown) {
    note(`note: ${flags.hparams} has a key "${key}" that ${method.name} does not know`);
  }
  if (!recipe.known && !flags.hparams) note(`note: ${recipe.source}`);
  return { hparams, source };
}

async function continuations(model: LoadedModel, prompts: string[]): Promise<string[]> {
  if (prompts.length === 0) return [];
  const ids = prompts.map((p) => model.tokenizer.encode(p));
  return (await generate(model, ids, { maxTokens: 32 })).map((text) => model.tokenizer.decode(text));
}

/** Writes what was asked for; says what changed and what was written. */
async function writeOutputs(model: LoadedModel, edit: Edit, flags: Flags) {
  const { out, peft, patch: file } = flags;
  const patch = await patchOf(model, edit);
  // The folder first: it replaces what is there, and the patch may go into it.
  const changed = out
    ? await writeModel(out, model, patch)
    : await measureChanges(model.checkpoint, patch.deltas);
  if (peft) await writePeft(peft, patch);
  if (file) await writePatch(file, patch);
  return { changed, written: [file, peft, out].filter((path) => path !== undefined) };
}

async function writeModel(out: string, model: LoadedModel, patch: Patch) {
  using bar = progress("Writing the model");
  const onProgress = (bytes: number, all: number) => bar.update(bytes, all);
  return await writeCheckpoint(out, model.checkpoint, patch.deltas, { onProgress });
}

function total({ nll, kl, wd }: { nll: number; kl: number; wd: number }): number {
  return nll + kl + wd;
}

function stopwatch(): () => number {
  let last = performance.now();
  return () => {
    const now = performance.now();
    const elapsed = (now - last) / 1000;
    last = now;
    return elapsed;
  };
}

// deno-lint-ignore no-explicit-any -- the object printed above, whose shape is the JSON contract
function printReport(result: any, source: string): void {
  const show = (state: RequestState) => `${JSON.stringify(state.top[0].token)} ${percent(state.top[0].p)}`;
  console.log(`${result.method} on ${result.model} (${result.adapter}). ${source}\n`);
  for (const e of result.edits) {
    console.log(`${fill(e.prompt, e.subject).text} …`);
    const rows = [
      ["", "before", "after"],
      ["says", show(e.before), show(e.after)],
      [`P(${e.target.trim()})`, percent(e.before.p_target), percent(e.after.p_target)],
    ];
    if (e.true) rows.push([`P(${e.true.trim()})`, percent(e.before.p_true), percent(e.after.p_true)]);
    rows.push(["continues", clip(e.before.generation), clip(e.after.generation)]);
    console.log(table(rows));
    console.log(
      `${e.success ? "The edit took" : "The edit did NOT take"}: ${e.steps} steps, loss ${e.loss.toFixed(3)}`,
    );
    for (const warning of e.warnings) console.log(`warning: ${warning}`);
    console.log();
  }
  for (const g of result.generations) {
    console.log(`${g.prompt}\n  before:${clip(g.before, 90)}\n  after: ${clip(g.after, 90)}\n`);
  }
  for (const w of result.weights_changed) {
    console.log(
      `changed ${w.tensor} [${w.shape.join(", ")}] by rank ${w.rank}, ${percent(w.relative)} of its norm`,
    );
  }
  const t = result.time_s;
  console.log(
    `time: load ${seconds(t.load)}, prepare ${seconds(t.prepare)}, edit ${seconds(t.edit)}, ` +
      `evaluate ${seconds(t.evaluate)}; device memory at most ${
        (result.memory.gpu_peak_bytes / 2 ** 20).toFixed(0)
      } MiB ` +
      `(weights ${(result.memory.gpu_weights_bytes / 2 ** 20).toFixed(0)})`,
  );
  for (const r of result.statistics) {
    console.log(
      `solver: ${r.route} route for C of layer ${r.layer}, condition at least ${
        r.condition.toExponential(0)
      }`,
    );
  }
  if (result.written.length) console.log(`written: ${result.written.join(", ")}`);
}

function clip(text: string, length = 44): string {
  const line = text.replace(/\s+/g, " ");
  return line.length > length ? `${line.slice(0, length - 1)}…` : line;
}
