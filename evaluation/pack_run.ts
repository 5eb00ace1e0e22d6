/** Running a pack: what a model says to its probes, and which of them pass. */
import { spaced, tokeniseTarget } from "../editors/requests.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { generate } from "../engine/models/generate.ts";
import type { Model } from "../engine/models/model.ts";
import { naturalStop, normaliseAnswer, startsWithWords } from "./metrics/generation.ts";
import { type PackProbe, probeName } from "./pack.ts";
import { meanLogProb, scoreTargets, type TargetScore, topTokens } from "./scoring.ts";

/** What a model says to a probe, as far as the probe's mode asks. */
export interface Said {
  /** For people: the text, the likeliest tokens, or the two probabilities. */
  shown: string;
  /** Greedy text up to its natural stop. */
  text?: string;
  /** The likeliest next token. */
  token?: number;
  /** Alias by alias: token ids and their scores. */
  forced?: { ids: readonly number[]; score: TargetScore }[];
  /** Mean log-probability of the rival. */
  rival?: number;
}

/** How one probe went. */
export interface ProbeResult {
  probe: PackProbe;
  outcome: "passed" | "failed" | "skipped";
  /** What was expected, for people. */
  expected: string;
  /** What the model says, for people. */
  said: string;
  /** Why it failed or was skipped, a sentence. */
  why?: string;
  /** Its share of the time. */
  seconds: number;
}

/** How a pack went, in the order of its probes. */
export interface PackResult {
  probes: ProbeResult[];
  passed: number;
  failed: number;
  skipped: number;
}

/** How to run a pack. */
export interface PackOptions {
  /** What the unedited model said, from {@link readProbes}: for probes to keep that have no answer. */
  before?: readonly Said[];
  /** Called after each batch. */
  onProgress?: (done: number, total: number) => void;
}

/** New tokens of a greedy text at most (guide section 6), and probes read at a time. */
const TEXT_TOKENS = 50, BATCH = 32;

/**
 * Runs probes on a model as it is. A probe that compares with the unedited model is skipped without `before`.
 * @throws {InputError} when a prompt does not fit the model's context, with its line
 */
export async function runProbes(
  model: Model,
  probes: readonly PackProbe[],
  options: PackOptions = {},
): Promise<PackResult> {
  const { before } = options;
  const clock = performance.now();
  const said = await readProbes(model, probes, options);
  const seconds = (performance.now() - clock) / 1000 / Math.max(1, probes.length);
  const results = probes.map((probe, i): ProbeResult => {
    const common = { probe, said: said[i].shown, seconds };
    if (probe.answers.length === 0 && before === undefined) {
      const why = "It has no answer, and there is no unedited model to compare with";
      return { ...common, outcome: "skipped", expected: "what the model said before", why };
    }
    const passes = holds(probe, said[i], before?.[i]);
    const expected = expectation(probe, before?.[i]);
    if (passes) return { ...common, outcome: "passed", expected };
    const why = `Expected ${expected}; the model ${probe.mode === "rank" ? "has" : "says"} ${said[i].shown}`;
    return { ...common, outcome: "failed", expected, why };
  });
  const count = (outcome: string) => results.filter((r) => r.outcome === outcome).length;
  return { probes: results, passed: count("passed"), failed: count("failed"), skipped: count("skipped") };
}

/** What a model says to each probe. @throws {InputError} when a prompt does not fit the context */
export async function readProbes(
  model: Model,
  probes: readonly PackProbe[],
  { onProgress }: Pick<PackOptions, "onProgress"> = {},
): Promise<Said[]> {
  const { tokenizer, dims } = model;
  const encoded = probes.map((probe) => {
    const ids = tokenizer.encode(probe.prompt);
    const where = probe.line ? `The prompt of line ${probe.line}` : `The prompt ${show(probe.prompt)}`;
    if (ids.length === 0) throw new InputError(`${where} has no token`);
    const longest = [...probe.answers, probe.rival ?? ""]
      .map((one) => tokenizer.encode(probe.prompt + spaced(one)).length);
    const needed = isForced(probe) ? Math.max(...longest) - 1 : ids.length + 1;
    if (needed > dims.maxPositions) {
      throw new InputError(
        `${where} needs ${needed} tokens with its answer; the model's context holds ${dims.maxPositions}`,
      );
    }
    return { probe, ids };
  });
  const out: Said[] = [];
  for (let at = 0; at < encoded.length; at += BATCH) {
    out.push(...await readBatch(model, encoded.slice(at, at + BATCH)));
    onProgress?.(out.length, probes.length);
  }
  return out;
}

/** A probe with its prompt's token ids. */
interface Asked {
  probe: PackProbe;
  ids: number[];
}

/** Is the probe answered by scoring its answers, not by letting the model speak? */
function isForced({ mode, answers }: PackProbe): boolean {
  return answers.length > 0 && (mode === "rank" || mode === "token");
}

async function readBatch(model: Model, batch: readonly Asked[]): Promise<Said[]> {
  const { tokenizer } = model;
  const forced = batch.filter(({ probe }) => isForced(probe));
  const items = forced.flatMap(({ probe: { prompt, answers, rival }, ids }) =>
    [...answers, ...rival === undefined ? [] : [rival]].map((answer) => ({
      prompt: ids,
      target: tokeniseTarget(tokenizer, { text: prompt, ids }, spaced(answer)),
    }))
  );
  const scores = (await scoreTargets(model, items)).map((score, i) => ({ ids: items[i].target, score }));
  const next = batch.filter(({ probe }) => probe.mode === "token" && !isForced(probe));
  const tokens = await topTokens(model, next.map(({ ids }) => ids), 1);
  const spoken = batch.filter(({ probe }) => probe.mode !== "token" && !isForced(probe));
  const texts = await speak(model, spoken);
  return batch.map((asked): Said => {
    const { probe } = asked;
    if (!isForced(probe)) {
      if (probe.mode === "token") {
        const [{ id }] = tokens[next.indexOf(asked)];
        return { token: id, shown: JSON.stringify(tokenizer.token(id)) };
      }
      const text = texts[spoken.indexOf(asked)];
      return { text, shown: JSON.stringify(text.trim()) };
    }
    const mine = scores.splice(0, probe.answers.length);
    const rival = probe.rival === undefined ? undefined : meanLogProb(scores.shift()!.score.logProbs);
    const shown = probe.mode === "rank"
      ? `P(${show(probe.answers[0])}) = ${probability(best(mine))}, P(${show(probe.rival)}) = ${
        probability(rival!)
      }`
      : JSON.stringify(tokenizer.decode(mine[0].score.argmax).trim());
    return { forced: mine, rival, shown };
  });
}

/** Greedy texts up to their natural stop. */
async function speak(model: Model, asked: readonly Asked[]): Promise<string[]> {
  if (asked.length === 0) return [];
  const { tokenizer } = model;
  // "St. Louis" goes on behind a full stop.
  const stopped = asked.every(({ probe }) => probe.answers.every((one) => naturalStop(one) === one));
  const until = (ids: number[]) => {
    const text = tokenizer.decode(ids);
    return stopped && naturalStop(text) !== text;
  };
  const texts = await generate(model, asked.map(({ ids }) => ids), { maxTokens: TEXT_TOKENS, until });
  return texts.map((ids, i) => answerIn(tokenizer.decode(ids), asked[i].probe.answers));
}

/** A text up to its natural stop; a stop within an answer that it begins with does not count. */
export function answerIn(text: string, answers: readonly string[]): string {
  const start = text.length - text.trimStart().length;
  const said = answers.filter((answer) => text.startsWith(answer, start))
    .reduce((longest, answer) => answer.length > longest.length ? answer : longest, "");
  const end = said ? start + said.length : 0;
  return text.slice(0, end) + naturalStop(text.slice(end));
}

function holds({ mode, answers, rival }: PackProbe, said: Said, before: Said | undefined): boolean {
  if (answers.length === 0) {
    return mode === "token" ? said.token === before!.token : said.text === before!.text;
  }
  if (mode === "rank") return rival !== undefined && best(said.forced!) > said.rival!;
  if (mode === "token") {
    return said.forced!.some(({ ids, score }) => ids.every((id, t) => id === score.argmax[t]));
  }
  const text = normaliseAnswer(said.text!);
  return answers.map(normaliseAnswer).some((answer) =>
    mode === "exact"
      ? text === answer
      : mode === "contains"
      ? text.includes(answer)
      : startsWithWords(text, answer)
  );
}

function expectation({ mode, answers, rival }: PackProbe, before: Said | undefined): string {
  if (answers.length === 0) return `${before!.shown} as before`;
  const any = answers.map((answer) => JSON.stringify(answer)).join(" or ");
  return mode === "rank" ? `${any} to be likelier than ${JSON.stringify(rival)}` : any;
}

function best(forced: NonNullable<Said["forced"]>): number {
  return Math.max(...forced.map(({ score }) => meanLogProb(score.logProbs)));
}

function probability(logProb: number): string {
  const p = Math.exp(logProb);
  return p >= 0.001 ? p.toPrecision(3) : p.toExponential(0);
}

/**
 * Refuses probes to keep that do not hold to begin with: nothing could be kept.
 * @throws {InputError} naming the first
 */
export function requireHeld({ probes }: PackResult): void {
  const lost = probes.find(({ outcome }) => outcome === "failed");
  if (!lost) return;
  const { probe, expected, said } = lost;
  const where = probe.line ? ` (line ${probe.line})` : "";
  throw new InputError(
    `The probe to keep ${
      show(probeName(probe))
    }${where} does not hold before the edit: expected ${expected}, ` +
      `the model says ${said}`,
  );
}
