/** What `emend neurons` prints: the object for machines, and tables for people made from it. */
import { type Change, type Effect, relativeChange } from "../../editors/neurons/effects.ts";
import type { FactNeurons } from "../../editors/neurons/find.ts";
import { nameOf } from "../../editors/neurons/select.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import { percent, seconds, table } from "../terminal.ts";
import type { ObjectText, Prompt, Settings } from "./common.ts";

/** What a search and its measurements gave. */
export interface Measured {
  /** The model as the user names it. */
  name: string;
  settings: Settings;
  /** The share of prompts that refining ended with. */
  share?: number;
  answer: ObjectText;
  target?: ObjectText;
  prompts: Prompt[];
  found: FactNeurons;
  effects: Effect[];
  unrelated: Prompt[];
  time_s: { load: number; search: number; effects: number };
  memory: { gpu_peak_bytes: number };
  written: string[];
}

/** The JSON contract. */
export function resultOf(model: LoadedModel, m: Measured) {
  const { tokenizer, gpu } = model;
  const { settings: { method, steps, threshold, share, minPrompts }, found } = m;
  const object = ({ text, ids, alone }: ObjectText) => {
    const counted = method === "kn" ? ids.slice(0, 1) : alone;
    return { text: text.trim(), tokens: counted.map((id) => ({ id, token: tokenizer.token(id) })) };
  };
  const change = (prompts: Prompt[]) => ({ token, before, after, says }: Change, i: number) => ({
    prompt: prompts[i].text,
    token: tokenizer.token(token),
    p_before: before,
    p_after: after,
    says_after: tokenizer.token(says),
  });
  return {
    model: m.name,
    method,
    adapter: gpu.description,
    settings: { steps, threshold, ...method === "kn" ? { share, min_prompts: minPrompts } : {} },
    answer: object(m.answer),
    ...m.target ? { target: object(m.target) } : {},
    prompts: m.prompts.map(({ text, ids }, i) => {
      const { probability, says, coarse, scores } = found.prompts[i];
      return {
        prompt: text,
        tokens: ids.length,
        p_answer: probability,
        says: tokenizer.token(says),
        layer_sums: scores.map((layer) => layer.reduce((a, b) => a + b, 0)),
        coarse,
      };
    }),
    neurons: neuronsOf(found),
    ...m.share === undefined ? {} : { share_used: m.share },
    effects: m.effects.map(({ name, facts, targets, unrelated }) => ({
      operation: name,
      fact_change: relativeChange(facts),
      ...targets.length ? { target_change: relativeChange(targets) } : {},
      unrelated_change: relativeChange(unrelated),
      facts: facts.map(change(m.prompts)),
      ...targets.length ? { targets: targets.map(change(m.prompts)) } : {},
      unrelated: unrelated.map(change(m.unrelated)),
    })),
    time_s: m.time_s,
    memory: m.memory,
    written: m.written,
  };
}

/**
 * The neurons with their mean attribution over all prompts and the prompts that have them, strongest first.
 */
function neuronsOf({ prompts, refined }: FactNeurons) {
  return refined.map(({ layer, index }) => ({
    layer,
    index,
    score: prompts.reduce((sum, { scores }) => sum + scores[layer][index], 0) / prompts.length,
    prompts:
      prompts.filter(({ coarse }) => coarse.some((n) => n.layer === layer && n.index === index)).length,
  })).sort((a, b) => b.score - a.score);
}

/** Neurons shown; the rest is counted. */
const SHOWN = 20;

/** Prints tables. */
export function printNeurons(result: ReturnType<typeof resultOf>): void {
  const { answer, target, prompts, neurons, effects, settings } = result;
  const P = `P(${answer.text})`;
  console.log(
    `${result.method} on ${result.model} (${result.adapter}): ${settings.steps} steps, ` +
      `threshold ${settings.threshold}\n`,
  );
  console.log(table([
    ["prompt", "says", P, "coarse set"],
    ...prompts.map((
      p,
    ) => [clip(p.prompt), JSON.stringify(p.says), percent(p.p_answer), `${p.coarse.length}`]),
  ]));
  console.log(`\n${summary(result)}`);
  if (neurons.length === 0) return;
  console.log(table([
    ["neuron", "attribution", "prompts"],
    ...neurons.slice(0, SHOWN).map((
      n,
    ) => [nameOf(n), n.score.toPrecision(3), `${n.prompts}/${prompts.length}`]),
  ]));
  if (neurons.length > SHOWN) console.log(`and ${neurons.length - SHOWN} more`);
  const wordings = `mean of ${prompts.length} prompt${prompts.length > 1 ? "s" : ""}`;
  console.log(`\nWhat becomes of them (${wordings}; ${effects[0].unrelated.length} unrelated prompts)`);
  console.log(table([
    ["", P, "change", ...target ? [`P(${target.text})`] : [], "unrelated", "say otherwise"],
    ...effects.map((e) => [
      OPERATIONS[e.operation],
      arrow(e.facts),
      signed(e.fact_change),
      ...target ? [arrow(e.targets!)] : [],
      signed(e.unrelated_change),
      `${e.unrelated.filter((u) => u.says_after !== u.token).length}/${e.unrelated.length}`,
    ]),
  ]));
  const { load, search, effects: measuring } = result.time_s;
  console.log(
    `\ntime: load ${seconds(load)}, search ${seconds(search)}, effects ${
      seconds(measuring)
    }; device memory at ` +
      `most ${(result.memory.gpu_peak_bytes / 2 ** 20).toFixed(0)} MiB`,
  );
  if (result.written.length) console.log(`written: ${result.written.join(", ")}`);
}

const OPERATIONS: Record<string, string> = {
  suppress: "suppress (activation × 0)",
  amplify: "amplify (activation × 2)",
  erase: "erase (value slot := 0)",
  update: "update (value slot rewritten)",
};

function summary({ neurons, prompts, share_used: share, method }: ReturnType<typeof resultOf>): string {
  if (neurons.length === 0) return "No neuron is shared by enough of the prompts.";
  const layers = Map.groupBy(neurons, ({ layer }) => layer);
  const places = [...layers].sort(([a], [b]) => a - b).map(([layer, of]) => `layer ${layer}: ${of.length}`);
  const where = method === "kn" && prompts.length > 1
    ? `in ${percent(share!)} of the prompts`
    : prompts.length > 1
    ? "of all prompts"
    : "of the prompt";
  return `${neurons.length} neuron${neurons.length > 1 ? "s" : ""} ${where} (${places.join(", ")})`;
}

function arrow(changes: readonly { p_before: number; p_after: number }[]): string {
  const mean = (of: (c: { p_before: number; p_after: number }) => number) =>
    percent(changes.reduce((sum, c) => sum + of(c), 0) / changes.length);
  return `${mean((c) => c.p_before)} → ${mean((c) => c.p_after)}`;
}

/** A relative change for people. */
export function signed(x: number): string {
  return `${x > 0 ? "+" : ""}${(100 * x).toFixed(Math.abs(x) < 0.1 ? 1 : 0)} %`;
}

function clip(text: string, length = 60): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}
