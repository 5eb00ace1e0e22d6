/** `emend edit`: changes facts, shows before and after, writes what was asked for. */
import { Command } from "npm:commander@15.1.0";
import { resolve } from "node:path";
import { applyEdit, type Edit } from "../editors/edit.ts";
import { findStatistics } from "../editors/find_statistics.ts";
import { methodNamed } from "../editors/methods.ts";
import { type EditRequest, validateRequest } from "../editors/requests.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { generate } from "../engine/models/generate.ts";
import { InputError } from "../engine/io/errors.ts";
import { checkWritable } from "../engine/io/atomic.ts";
import { guard, guardBaseline } from "../evaluation/firewall.ts";
import { lintRequests } from "../evaluation/lint.ts";
import { outOfProportion } from "../evaluation/proportion.ts";
import { editSucceeded, requestStates } from "../evaluation/state.ts";
import { stopwatch } from "../evaluation/stopwatch.ts";
import { type Patch, patchOf, readPatch, writePatch } from "../patches/patch.ts";
import { checkCheckpointFolder, measureChanges, writeCheckpoint } from "../patches/checkpoint.ts";
import { writePeft } from "../patches/peft.ts";
import { requireWeights } from "../patches/prompt_patch.ts";
import { dryRun } from "./dry_run.ts";
import { printReport } from "./edit_report.ts";
import { budgetsOf, type FirewallFlags, firewallJson } from "./firewall.ts";
import { readGivenHparams, resolveHparams } from "./hparams.ts";
import { collect, number, readRequests } from "./inputs.ts";
import { methodList } from "./methods.ts";
import { openSession } from "./model.ts";
import { checkOutput } from "./outputs.ts";
import { printJson, progress } from "./terminal.ts";

interface Flags extends FirewallFlags {
  model: string;
  method: string;
  prompt?: string;
  subject?: string;
  target?: string;
  true?: string;
  requests?: string;
  hparams?: string;
  set: string[];
  editor?: string;
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
${methodList()}`;

const FIREWALL = `

Firewall: an edit that breaks a budget is scaled back until it breaks none; when it does not take there any more it
is refused: nothing is written and the exit code is 1.`;

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
    .option("--editor <path>", "a trained editor: the folder of its training, or its file")
    .option("--stats <file>", "statistics of the edited layer; may be repeated", collect, [])
    .option("--generate <prompt>", "also continue this prompt before and after; may be repeated", collect, [])
    .option("--seed <n>", "seed of the context templates", "0")
    .option("--max-drift <nats>", "firewall: mean KL on neutral prompts at most")
    .option("--max-norm-growth <share>", "firewall: growth of a weight's norm at most; 0.01 is 1 %")
    .option("--keep <prompt>", "firewall: its next token must stay; may be repeated", collect, [])
    .option("--keep-pack <file>", "firewall: the probes to keep of this pack must hold (see emend test)")
    .option("--out <dir>", "write the edited model there, in the base's dtype")
    .option("--patch <file>", "write the edit as a patch file")
    .option("--peft <dir>", "write the edit as a PEFT LoRA adapter")
    .option("--dry-run", "show memory, time, layers, statistics and tokens; change nothing")
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLE + FIREWALL)
    .action((flags: Flags) => runEdit(flags));
}

async function runEdit(flags: Flags): Promise<void> {
  const method = methodNamed(flags.method);
  const requests = await requestsOf(flags);
  const seed = number("--seed", flags.seed, 0, 2 ** 32 - 1, true);
  const given = await readGivenHparams(method, flags);
  const budgets = await budgetsOf(flags);
  const wrong = lintRequests(requests).find(({ severity }) => severity === "error");
  if (wrong) throw new InputError(`Request ${wrong.index + 1} cannot be made: ${uncapital(wrong.message)}`);
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
  const { hparams, source } = resolveHparams(method, model, given, note);
  if (flags.dryRun) {
    return await dryRun(model, requests, { method, hparams, source, json: flags.json, stats: flags.stats });
  }

  const clock = stopwatch();
  using statistics = method.statistics(hparams).length
    ? await findStatistics(model, method.statistics(hparams), { files: flags.stats })
    : undefined;
  await method.prepare(model, hparams, seed);
  const prepare = clock();

  const before = await requestStates(model, requests);
  const textsBefore = await continuations(model, flags.generate);
  const lint = lintRequests(requests, { current: before.map(({ generation }) => generation) });
  for (const { severity, index, message } of lint) {
    note(`${severity}: ${requests.length > 1 ? `request ${index + 1}: ` : ""}${message}`);
  }
  using baseline = budgets && await guardBaseline(model, budgets);
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

  const guarded = budgets && await guard(model, edit, budgets, baseline!);
  const kept = guarded?.refused === undefined ? guarded?.edit ?? edit : undefined;
  using _applied = applyEdit(model, kept ?? { deltas: [] });
  const after = kept ? await requestStates(model, requests) : before;
  const textsAfter = kept ? await continuations(model, flags.generate) : textsBefore;
  evaluate += clock();

  const { changed, written } = kept ? await writeOutputs(model, kept, flags) : { changed: [], written: [] };
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
      success: kept !== undefined && editSucceeded(r, after[i]),
      steps: edit.outcomes[i].steps,
      loss: edit.outcomes[i].losses.length ? total(edit.outcomes[i].losses.at(-1)!) : null,
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
    notes: [
      ...edit.notes ?? [],
      ...outOfProportion(changed.map(({ tensor, relative }) => ({ role: tensor, relative })), { ...hparams }),
    ],
    lint,
    weights_changed: changed,
    written,
    ...(guarded ? { firewall: firewallJson(guarded) } : {}),
  };
  if (flags.json) printJson(result);
  else printReport(result, source);
  if (kept) return;
  for (const sentence of [...guarded!.broken, guarded!.refused]) console.error(`error: ${sentence}`);
  Deno.exitCode = 1;
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

function uncapital(sentence: string): string {
  return sentence[0].toLowerCase() + sentence.slice(1);
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
  if (out) requireWeights(patch, "a checkpoint");
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
