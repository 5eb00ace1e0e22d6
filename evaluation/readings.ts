/**
 * What one state of the model says to a case: its answers under teacher forcing, greedy texts up to their
 * natural stop, and sampled texts for fluency. A case's answers are scored in one batch of rows, whatever other
 * cases a run has, so a score depends on nothing but the case, the weights and the adapter.
 */
import { type EditRequest, fill, requireRoom, spaced, tokeniseTarget } from "../editors/requests.ts";
import { generate } from "../engine/models/generate.ts";
import type { Model } from "../engine/models/model.ts";
import type { EditCase, Probe, ProbeKind } from "./cases.ts";
import { naturalStop } from "./metrics/generation.ts";
import type { Forced, Reading, Readings } from "./records.ts";
import { type Continuation, scoreTargets } from "./scoring.ts";

/** Which readings are taken beside teacher forcing. */
export interface ReadingPlan {
  /** Greedy texts at the probes that ask for the new fact or what follows from it. */
  generate: boolean;
  /** Sampled texts of 100 tokens at the generation prompts (Meng et al. 2022, section 3.3). */
  texts: boolean;
}

/** Probes whose greedy text says something: the edited fact and its consequences. */
const SPOKEN: ReadonlySet<ProbeKind> = new Set(
  ["rewrite", "paraphrase", "alias", "reasoning", "logic", "multi-hop", "single-hop"],
);

/** No published metric asks about the attribute prompts, and a record has ten of them. */
const UNASKED: ReadonlySet<ProbeKind> = new Set(["attribute"]);

/** New tokens of a greedy text at most (Mirage's setting, guide section 6). */
const SPOKEN_TOKENS = 50;

/** Prompts that are continued together, at least and at most. */
const COMPANY = 4, TOGETHER = 32;

/** ROME's generations: tokens of the whole text, and top-k at temperature 1. */
const TEXT_TOKENS = 100, TOP_K = 5;

/** What of a case is read. */
type Asked = Pick<EditCase, "requests" | "probes">;

/**
 * Reads cases. Each one's prompts are scored in a batch of their own; greedy texts of all are written together,
 * for a step of decoding costs almost the same for many rows as for few.
 * @param seed of the sampled texts
 */
export async function readCases(
  model: Model,
  cases: readonly Asked[],
  plan: ReadingPlan,
  seed: number,
): Promise<Readings[]> {
  const all: Readings[] = [];
  for (const { probes } of cases) all.push({ probes: await forcedReadings(model, probes) });
  if (plan.generate) {
    const asked = cases.flatMap(({ probes }) => probes.flatMap(spokenPrompts));
    const texts = await greedyTexts(model, asked);
    cases.forEach(({ probes }, i) => addTexts(all[i].probes, probes, texts));
  }
  if (!plan.texts) return all;
  for (const [i, { probes, requests }] of cases.entries()) {
    const starts = probes.filter(({ kind }) => kind === "generation").map(({ prompt }) => prompt);
    all[i].texts = await sampledTexts(model, starts.length ? starts : [promptOf(requests[0])], seed);
  }
  return all;
}

/** As {@link readCases}, one. */
export async function readCase(model: Model, one: Asked, plan: ReadingPlan, seed: number): Promise<Readings> {
  return (await readCases(model, [one], plan, seed))[0];
}

/**
 * Makes sure that everything a case asks fits the model's context.
 * @throws {InputError} naming the prompt
 */
export function requireFits(model: Model, { requests, probes }: EditCase): void {
  for (const { text, target } of [...requests.map(requestText), ...probes.flatMap(probeTexts)]) {
    const room = model.tokenizer.encode(text + spaced(target)).length;
    requireRoom(room, model.dims, `The prompt "${text}" with its answer`);
  }
}

function requestText(request: EditRequest) {
  return { text: promptOf(request), target: request.target };
}

function probeTexts({ prompt, answers, rival, test }: Probe) {
  const asked = [answers[0]?.[0] ?? "", rival ?? ""].map((target) => ({ text: prompt, target }));
  return [...asked, ...(test?.conditions ?? []).map((c) => ({ text: c.prompt, target: "" }))];
}

function promptOf({ prompt, subject }: EditRequest): string {
  return fill(prompt, subject).text;
}

/** Answers and rivals of all probes in one batch. */
async function forcedReadings(model: Model, probes: readonly Probe[]): Promise<Reading[]> {
  const { tokenizer } = model;
  const encoded = new Map<string, number[]>();
  const items: (Continuation & { text: string; keep: (forced: Forced) => void })[] = [];
  const readings = probes.map(({ kind, prompt, answers, rival }): Reading => {
    const reading: Reading = {};
    if (UNASKED.has(kind)) return reading;
    const ids = encoded.get(prompt) ?? tokenizer.encode(prompt);
    encoded.set(prompt, ids);
    const ask = (text: string | undefined, keep: (forced: Forced) => void) => {
      if (text === undefined) return;
      const target = tokeniseTarget(tokenizer, { text: prompt, ids }, spaced(text));
      items.push({ prompt: ids, target, text, keep });
    };
    ask(answers[0]?.[0], (forced) => reading.answer = forced);
    ask(rival, (forced) => reading.rival = forced);
    return reading;
  });
  const scored = await scoreTargets(model, items);
  const words = (ids: readonly number[]) => ids.map((id) => tokenizer.token(id));
  items.forEach(({ text, target, keep }, i) => {
    const pieces = { tokens: words(target), argmax: words(scored[i].argmax) };
    keep({ text, tokens: [...target], ...scored[i], pieces });
  });
  return readings;
}

/** The prompt of a probe that is spoken, then those of its test's conditions. */
function spokenPrompts({ kind, prompt, test }: Probe): string[] {
  if (!SPOKEN.has(kind) && test === undefined) return [];
  return [prompt, ...(test?.conditions ?? []).map((condition) => condition.prompt)];
}

function addTexts(readings: Reading[], probes: readonly Probe[], texts: ReadonlyMap<string, string>): void {
  probes.forEach((probe, i) => {
    const [prompt, ...conditions] = spokenPrompts(probe);
    if (prompt === undefined) return;
    readings[i].text = texts.get(prompt)!;
    if (conditions.length) readings[i].conditions = conditions.map((c) => texts.get(c)!);
  });
}

/** Greedy continuations up to their natural stop, by prompt. */
export async function greedyTexts(model: Model, asked: readonly string[]): Promise<Map<string, string>> {
  const prompts = [...new Set(asked)];
  const texts = new Map<string, string>();
  for (let at = 0; at < prompts.length; at += TOGETHER) {
    const some = prompts.slice(at, at + TOGETHER);
    (await continueGreedily(model, some)).forEach((text, i) => texts.set(some[i], text));
  }
  return texts;
}

async function continueGreedily(model: Model, prompts: readonly string[]): Promise<string[]> {
  const { tokenizer } = model;
  const ids = prompts.map((prompt) => tokenizer.encode(prompt));
  const until = (tokens: number[]) => {
    const text = tokenizer.decode(tokens);
    return naturalStop(text) !== text;
  };
  // Very few rows go through other kernels, whose last bits differ: with company a prompt is always among many.
  while (ids.length < COMPANY) ids.push(ids[0]);
  const spoken = await generate(model, ids, { maxTokens: SPOKEN_TOKENS, until });
  return prompts.map((_, i) => naturalStop(tokenizer.decode(spoken[i])));
}

async function sampledTexts(model: Model, prompts: readonly string[], seed: number): Promise<string[]> {
  const { tokenizer, dims } = model;
  const ids = prompts.map((prompt) => tokenizer.encode(prompt));
  const whole = Math.min(TEXT_TOKENS, dims.maxPositions);
  const shortest = Math.min(...ids.map(({ length }) => length));
  const sampling = { temperature: 1, topK: TOP_K, seed };
  const texts = await generate(model, ids, { maxTokens: Math.max(1, whole - shortest), ...sampling });
  return texts.map((tokens, i) => prompts[i] + tokenizer.decode(tokens.slice(0, whole - ids[i].length)));
}
