/** The neurons of a relation: which its facts share, and what erasing the most frequent ones does. */
import { z } from "npm:zod@4.6.7";
import type { Edit } from "../../editors/edit.ts";
import { type Change, effectsOf, relativeChange } from "../../editors/neurons/effects.ts";
import { relationNeurons } from "../../editors/neurons/relation.ts";
import { nameOf } from "../../editors/neurons/select.ts";
import { eraseSlots } from "../../editors/neurons/slots.ts";
import { requireRoom } from "../../editors/requests.ts";
import { InputError } from "../../engine/io/errors.ts";
import { stopwatch } from "../../evaluation/stopwatch.ts";
import { patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { openSession } from "../model.ts";
import { checkOutput } from "../outputs.ts";
import { percent, printJson, progress, seconds, table } from "../terminal.ts";
import { filledPrompts, type Flags, objectOf, settingsOf, unrelatedPrompts } from "./common.ts";
import { signed } from "./report.ts";

const factSchema = z.object({
  prompts: z.array(z.string()).min(1),
  subject: z.string().optional(),
  answer: z.string().min(1),
});

/** A fact of the file, prompts filled in. */
interface FactText {
  prompts: string[];
  answer: string;
}

/** Finds the neurons of a relation's facts and measures what erasing the most frequent ones does. */
export async function runRelation(flags: Flags, file: string): Promise<void> {
  const settings = settingsOf(flags);
  const single = ["prompt", "subject", "answer", "target", "update", "out"] as const;
  const extra = single.find((name) => flags[name]?.length);
  if (extra) throw new InputError(`--${extra} is for one fact; --facts brings its own`);
  if (settings.method !== "kn") throw new InputError(`${settings.method} does not know relations`);
  const texts = await readFacts(file);
  if (flags.erase) await checkOutput(flags.erase, "a patch", readPatch);

  using session = await openSession(flags.model);
  const { gpu, model, loadSeconds } = session;
  const clock = stopwatch();
  const facts = texts.map(({ prompts, answer }) => {
    const tokenised = prompts.map((text) => ({ text, ids: model.tokenizer.encode(text) }));
    for (const { text, ids } of tokenised) requireRoom(ids.length, model.dims, `The prompt "${text}"`);
    const [id] = objectOf(model, tokenised[0], answer).ids;
    return { prompts: tokenised.map(({ ids }) => ids), answer: id };
  });
  gpu.memory.resetPeak();
  const found = await search(model, facts, settings);
  const searching = clock();
  const { frequent, shared, share } = found;
  const deltas = frequent.length ? await eraseSlots(model, frequent) : [];
  const unrelated = unrelatedPrompts(model, flags);
  const questions = facts.flatMap(({ prompts, answer }) => prompts.map((ids) => ({ ids, answer })));
  const asked = { facts: questions, unrelated: unrelated.map(({ ids }) => ids) };
  const effects = frequent.length ? await effectsOf(model, frequent, asked, { erase: deltas }) : [];
  const written: string[] = [];
  if (flags.erase) {
    if (deltas.length === 0) throw new InputError(`Cannot write ${flags.erase}: no neuron was found`);
    const { method, minPrompts, ...rest } = settings;
    const hparams = { operation: "erase", ...rest, min_prompts: minPrompts };
    const edit: Edit = { method, hparams, requests: [], deltas, outcomes: [] };
    await writePatch(flags.erase, await patchOf(model, edit));
    written.push(flags.erase);
  }
  const { method, minPrompts, ...rest } = settings;
  const result = {
    model: flags.model,
    method,
    adapter: gpu.description,
    settings: { ...rest, min_prompts: minPrompts },
    share_used: share,
    facts: found.facts.map(({ probabilities, coarse, refined, own }, f) => ({
      ...texts[f],
      token: model.tokenizer.token(facts[f].answer),
      p_answer: probabilities,
      coarse,
      refined,
      own,
    })),
    shared,
    frequent,
    effects: effects.map(({ name, facts: own, unrelated }) => ({
      operation: name,
      fact_change: relativeChange(own),
      unrelated_change: relativeChange(unrelated),
      ...said(own),
    })),
    time_s: { load: loadSeconds, search: searching, effects: clock() },
    memory: { gpu_peak_bytes: gpu.memory.peak },
    written,
  };
  if (flags.json) printJson(result);
  else print(result);
}

async function search(
  model: Parameters<typeof relationNeurons>[0],
  facts: Parameters<typeof relationNeurons>[1],
  settings: Omit<Parameters<typeof relationNeurons>[2], "onProgress">,
) {
  using bar = progress("Attributing");
  return await relationNeurons(model, facts, {
    ...settings,
    onProgress: (done, total) => bar.update(done, total),
  });
}

/** How often the answer is the likeliest token after an operation, and its mean −log P before and after. */
function said(changes: readonly Change[]) {
  const mean = (of: (c: Change) => number) => changes.reduce((sum, c) => sum + of(c), 0) / changes.length;
  return {
    right_after: changes.filter(({ says, token }) => says === token).length,
    of: changes.length,
    perplexity_before: Math.exp(mean(({ before }) => -Math.log(before))),
    perplexity_after: Math.exp(mean(({ after }) => -Math.log(after))),
  };
}

async function readFacts(file: string): Promise<FactText[]> {
  const text = await Deno.readTextFile(file).catch(() => {
    throw new InputError(`Cannot read ${file}`);
  });
  const lines = file.endsWith(".jsonl") ? text.split("\n").filter((line) => line.trim()) : undefined;
  let values: unknown;
  try {
    values = lines ? lines.map((line) => JSON.parse(line)) : JSON.parse(text);
  } catch (error) {
    throw new InputError(`${file} is not JSON: ${(error as Error).message}`);
  }
  if (!Array.isArray(values) || values.length === 0) throw new InputError(`${file} holds no list of facts`);
  return values.map((value, i) => {
    const { success, data, error } = factSchema.safeParse(value);
    const where = `Fact ${i + 1} of ${file}`;
    if (!success) {
      const [issue] = error.issues;
      throw new InputError(`${where} has a bad value for "${issue.path.join(".")}": ${issue.message}`);
    }
    return { prompts: filledPrompts(data.prompts, data.subject, `${where}: `), answer: data.answer };
  });
}

// deno-lint-ignore no-explicit-any -- the JSON contract's object
function print(result: any): void {
  console.log(`${result.method} on ${result.model} (${result.adapter}): ${result.facts.length} facts\n`);
  console.log(table([
    ["first prompt", "answer", "P(answer)", "coarse sets", "refined", "its own"],
    ...result.facts.map((f: { [key: string]: number[] & string }) => [
      f.prompts[0],
      JSON.stringify(f.token),
      percent(f.p_answer.reduce((a: number, b: number) => a + b, 0) / f.p_answer.length),
      f.coarse.join(" "),
      `${f.refined.length}`,
      `${f.own.length}`,
    ]),
  ]));
  const names = result.frequent.map(nameOf).join(" ") || "none";
  console.log(
    `\n${result.shared.length} neurons are in a tenth of the facts (share of prompts ${
      result.share_used.toFixed(2)
    })`,
  );
  console.log(`the most frequent: ${names}\n`);
  if (result.effects.length > 0) {
    console.log(table([
      ["", "P(answer)", "says the answer", "perplexity", "unrelated"],
      ...result.effects.map((e: ReturnType<typeof said> & Record<string, number | string>) => [
        String(e.operation),
        signed(Number(e.fact_change)),
        `${e.right_after}/${e.of}`,
        `${e.perplexity_before.toPrecision(3)} → ${e.perplexity_after.toPrecision(3)}`,
        signed(Number(e.unrelated_change)),
      ]),
    ]));
  }
  const { load, search, effects } = result.time_s;
  console.log(`\ntime: load ${seconds(load)}, search ${seconds(search)}, effects ${seconds(effects)}`);
  if (result.written.length) console.log(`written: ${result.written.join(", ")}`);
}
