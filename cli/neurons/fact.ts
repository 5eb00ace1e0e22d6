/** The neurons of one fact: found, suppressed, amplified, erased, rewritten. */
import type { Edit, WeightDelta } from "../../editors/edit.ts";
import { easyEditSlots } from "../../editors/kn.ts";
import { effectsOf } from "../../editors/neurons/effects.ts";
import { type FactNeurons, findEasyEdit, findNeurons } from "../../editors/neurons/find.ts";
import { predictWith } from "../../editors/neurons/interventions.ts";
import type { Neuron } from "../../editors/neurons/select.ts";
import { eraseSlots, updateSlots } from "../../editors/neurons/slots.ts";
import { requireRoom } from "../../editors/requests.ts";
import { checkWritable } from "../../engine/io/atomic.ts";
import { InputError } from "../../engine/io/errors.ts";
import { writeSafetensors } from "../../engine/io/safetensors_write.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import { stopwatch } from "../../evaluation/stopwatch.ts";
import { patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { openSession } from "../model.ts";
import { checkOutput } from "../outputs.ts";
import { printJson, progress } from "../terminal.ts";
import {
  filledPrompts,
  type Flags,
  objectOf,
  type ObjectText,
  type Prompt,
  type Settings,
  settingsOf,
  unrelatedPrompts,
} from "./common.ts";
import { printNeurons, resultOf } from "./report.ts";

/** Finds the neurons of one fact and measures what they do. */
export async function runFact(flags: Flags): Promise<void> {
  const texts = filledPrompts(flags.prompt, flags.subject);
  const asked = settingsOf(flags);
  const settings = { ...asked, minPrompts: Math.min(asked.minPrompts, texts.length) };
  for (const file of [flags.erase, flags.update]) if (file) await checkOutput(file, "a patch", readPatch);
  if (flags.out) await checkWritable(flags.out);
  if (flags.update && !flags.target) throw new InputError("--update wants a --target to write");

  using session = await openSession(flags.model);
  const { gpu, model, loadSeconds } = session;
  const clock = stopwatch();
  const prompts = texts.map((text) => ({ text, ids: model.tokenizer.encode(text) }));
  for (const { text, ids } of prompts) requireRoom(ids.length, model.dims, `The prompt "${text}"`);
  const answer = await answerOf(model, prompts[0], flags.answer);
  const target = flags.target === undefined ? undefined : objectOf(model, prompts[0], flags.target);
  if (settings.method === "kn") {
    for (const note of notesOf(asked, texts.length, [answer, ...target ? [target] : []])) {
      console.error(`note: ${note}`);
    }
  }

  gpu.memory.resetPeak();
  const { found, share } = await search(model, prompts.map(({ ids }) => ids), answer, settings);
  const searching = clock();
  const neurons = found.refined;
  const edits: Record<string, WeightDelta[]> = {};
  if (neurons.length > 0) {
    edits.erase = await eraseSlots(model, neurons);
    if (target) edits.update = await update(model, neurons, prompts[0].ids, answer, target, settings.method);
  }
  const unrelated = unrelatedPrompts(model, flags);
  const effects = neurons.length === 0 ? [] : await effectsOf(model, neurons, {
    facts: prompts.map(({ ids }) => ({ ids, answer: answer.ids[0] })),
    target: target?.ids[0],
    unrelated: unrelated.map(({ ids }) => ids),
  }, edits);
  const measuring = clock();

  const written = await writeOutputs(model, flags, { found, edits, settings, target: target?.text });
  const result = resultOf(model, {
    ...{ name: flags.model, settings, share, answer, target, prompts, found, effects, unrelated, written },
    time_s: { load: loadSeconds, search: searching, effects: measuring },
    memory: { gpu_peak_bytes: gpu.memory.peak },
  });
  if (flags.json) printJson(result);
  else printNeurons(result);
}

/** What the user should know before a search of the authors' kind. */
function notesOf({ minPrompts }: Settings, prompts: number, objects: readonly ObjectText[]): string[] {
  const few = prompts === 1 ? "1 prompt" : `${prompts} prompts`;
  return [
    ...prompts < minPrompts
      ? [
        `${few} can say little about what a fact's wordings share: ` +
        `the authors want a neuron in ${minPrompts}; add --prompt`,
      ]
      : [],
    ...objects.filter(({ ids }) => ids.length > 1).map(({ text, ids }) =>
      `"${text.trim()}" has ${ids.length} tokens; only the first counts`
    ),
  ];
}

async function answerOf(model: LoadedModel, prompt: Prompt, given?: string) {
  if (given !== undefined) return objectOf(model, prompt, given);
  const [{ says }] = await predictWith(model, [{ ids: prompt.ids, answer: 0 }], [], 1);
  return { text: model.tokenizer.token(says), ids: [says], alone: [says] };
}

async function search(
  model: LoadedModel,
  prompts: number[][],
  answer: ObjectText,
  settings: Settings,
): Promise<{ found: FactNeurons; share?: number }> {
  using bar = progress("Attributing");
  const onProgress = (done: number, total: number) => bar.update(done, total);
  if (settings.method === "kn") {
    const fact = { prompts, answer: answer.ids[0] };
    const { facts: [found], share } = await findNeurons(model, [fact], { ...settings, onProgress });
    return { found, share };
  }
  const { steps, threshold: adaptive_threshold } = settings;
  const options = { steps, adaptive_threshold, refine: false, p: 0, onProgress };
  return { found: await findEasyEdit(model, prompts, answer.alone, options) };
}

async function update(
  model: LoadedModel,
  neurons: Neuron[],
  prompt: number[],
  answer: ObjectText,
  target: ObjectText,
  method: Settings["method"],
): Promise<WeightDelta[]> {
  if (method === "kn-easyedit") return await easyEditSlots(model, neurons, prompt, target.alone);
  const tokens = { from: answer.ids[0], to: target.ids[0] };
  return await updateSlots(model, neurons, tokens, { norm_lambda1: 1, norm_lambda2: 8 });
}

/** Writes patches and attributions that were asked for. */
async function writeOutputs(
  model: LoadedModel,
  flags: Flags,
  { found, edits, settings, target }: {
    found: FactNeurons;
    edits: Record<string, WeightDelta[]>;
    settings: Settings;
    target?: string;
  },
): Promise<string[]> {
  const { method, steps, threshold, share, minPrompts } = settings;
  const written: string[] = [];
  for (const [operation, file] of [["erase", flags.erase], ["update", flags.update]] as const) {
    if (!file) continue;
    if (!edits[operation]) throw new InputError(`Cannot write ${file}: no neuron was found`);
    const hparams = { operation, steps, threshold, share, min_prompts: minPrompts };
    const template = flags.prompt[0], subject = flags.subject;
    const requests = operation === "update" && subject !== undefined && template.includes("{}")
      ? [{ prompt: template, subject, target: target! }]
      : [];
    const edit: Edit = { method, hparams, requests, deltas: edits[operation], outcomes: [] };
    await writePatch(file, await patchOf(model, edit));
    written.push(file);
  }
  if (flags.out) {
    const { layers, inner } = model.dims;
    const bytes = (f: Float32Array) => new Uint8Array(f.buffer, f.byteOffset, f.byteLength);
    await writeSafetensors(
      flags.out,
      found.prompts.map(({ scores }, i) => ({
        name: `prompt.${i}`,
        dtype: "F32" as const,
        shape: [layers, inner],
        data: () => scores.map(bytes),
      })),
      { format: "emend-attributions", method, prompts: JSON.stringify(flags.prompt) },
    );
    written.push(flags.out);
  }
  return written;
}
