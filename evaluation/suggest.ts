/**
 * An edit layer for a model that has no recipe, with the evidence: from a sweep, ten facts edited at candidate
 * layers, or from a trace, the layer whose MLP window brings back most at the last subject token (Meng et al.
 * 2022 chose theirs so). The two need not agree: where a fact is recalled says little about where it is edited
 * best (Hase et al. 2023, "Does Localization Inform Editing?"). So the sweep is what is recommended.
 */
import { contexts } from "../editors/contexts.ts";
import { applyDeltas } from "../editors/edit.ts";
import { type RomeHparams, romeSchema } from "../editors/hparams.ts";
import { romeRecipe } from "../editors/recipes.ts";
import { romeTarget, romeUpdate } from "../editors/rome.ts";
import { optimiseTargets } from "../editors/targets.ts";
import { averageTraces, TOKEN_CLASSES } from "../editors/tracing/average.ts";
import { recall } from "../editors/tracing/prompt.ts";
import { trace } from "../editors/tracing/trace.ts";
import { InputError } from "../engine/io/errors.ts";
import type { ModelConfig } from "../engine/io/config.ts";
import type { Model } from "../engine/models/model.ts";
import type { EditCase } from "./cases.ts";
import { harmonicScore, scoreCase } from "./metrics/index.ts";
import { readCases } from "./readings.ts";
import type { Metrics } from "./records.ts";

/** What one layer did in a sweep: ROME's measures over the edited facts, and the mean of its magnitudes. */
export interface LayerScore {
  layer: number;
  ES: number;
  PS: number;
  NS: number;
  /** Harmonic mean of the three. */
  score: number;
  /** Mean of EM, PM and NM: tells layers of equal scores apart. */
  magnitude: number;
}

/** What a trace says about one layer. */
export interface LayerEffect {
  layer: number;
  /** Average indirect effect of the MLP window around the layer, at the last subject token. */
  effect: number;
  ci95: number;
}

/** A recipe as the files in editors/recipes have it, with its evidence. */
export interface SuggestedRecipe {
  match: Record<string, unknown>;
  model: string;
  source: string;
  hparams: Record<string, unknown>;
  evidence: {
    by: "sweep" | "trace";
    /** Facts used, and how many of them the model knows. */
    facts: number;
    known: number;
    layers: LayerScore[] | LayerEffect[];
    /** What the layers were tried with. */
    settings: Record<string, unknown>;
  };
}

/** How to look for a layer. */
export interface SuggestOptions {
  by: "sweep" | "trace";
  /** Facts to try with; those that the model knows come first. */
  cases: readonly EditCase[];
  /** How many. */
  facts: number;
  /** Candidates of a sweep; default at most eight over the depth. */
  layers?: readonly number[];
  onProgress?: (done: number, total: number) => void;
}

/** Contexts of a sweep: fewer than of an edit, for layers are compared with each other only. */
const CONTEXTS: [number, number][] = [[5, 4]];

/** Cases that are asked for, at most, until enough known ones are found. */
const ASKED = 200;

/**
 * Proposes a layer.
 * @param name the model's name for the recipe
 * @throws {InputError} without usable facts, or for a trace when the model knows none
 */
export async function suggestRecipe(
  model: Model,
  name: string,
  options: SuggestOptions,
): Promise<SuggestedRecipe> {
  const { by } = options;
  const { chosen, known } = await choose(model, options);
  const { hparams } = romeRecipe(model.config);
  const found = by === "sweep"
    ? await bySweep(model, chosen, options)
    : await byTrace(model, chosen.slice(0, known), options);
  const facts = by === "sweep" ? chosen.length : known;
  return {
    match: matchOf(model.config),
    model: name,
    source: `emend recipe suggest, by a ${by} over ${facts} facts`,
    hparams: { ...hparams, layers: [found.layer] },
    evidence: { by, facts, known, layers: found.layers, settings: found.settings },
  };
}

/** Single-edit facts, known ones first. */
async function choose(model: Model, { cases, facts }: SuggestOptions) {
  const single = cases.filter(({ requests }) => requests.length === 1).slice(0, ASKED);
  const asked = single.map(({ requests: [{ prompt, subject, true: answer }] }) => ({
    prompt,
    subject,
    answer,
  }));
  const recalled = await recall(model, asked);
  const knows = (i: number) => recalled[i].known && asked[i].answer !== undefined;
  const known = single.filter((_, i) => knows(i)).slice(0, facts);
  const rest = single.filter((_, i) => !knows(i)).slice(0, facts - known.length);
  if (known.length + rest.length === 0) {
    throw new InputError("There is no fact with a single edit to try with");
  }
  return { chosen: [...known, ...rest], known: known.length };
}

/** The config's values by which a recipe knows its model. */
export function matchOf(config: ModelConfig): Record<string, unknown> {
  const { type, width, layers, inner } = config;
  return { type, ...("variant" in config ? { variant: config.variant } : {}), width, layers, inner };
}

async function bySweep(model: Model, cases: readonly EditCase[], options: SuggestOptions) {
  const candidates = options.layers ?? spread(model.dims.layers, romeRecipe(model.config).hparams.layers);
  const { hparams } = romeRecipe(model.config);
  const settings: RomeHparams = romeSchema.parse({
    ...hparams,
    layers: [0],
    mom2_adjustment: false,
    context_template_length_params: CONTEXTS,
  });
  const texts = await contexts(model, CONTEXTS);
  const plan = { generate: false, texts: false };
  const before = await readCases(model, cases, plan, 0);
  const scores: LayerScore[] = [];
  for (const [at, layer] of candidates.entries()) {
    const metrics: Metrics[] = [];
    for (const [i, one] of cases.entries()) {
      const [target] = await optimiseTargets(model, [romeTarget(model, one.requests[0], texts)], {
        ...settings,
        layer,
      });
      const { left, right } = await romeUpdate("r-rome", target, (key) => Promise.resolve(key));
      using _ = applyDeltas(model, [{ role: `layer.${layer}.mlp.down`, rank: 1, left, right }]);
      const [after] = await readCases(model, [one], plan, 0);
      metrics.push(scoreCase(one, before[i], after));
      options.onProgress?.(at * cases.length + i + 1, candidates.length * cases.length);
    }
    const mean = (key: string) => {
      const values = metrics.flatMap(({ [key]: value }) => typeof value === "number" ? [value] : []);
      return values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0;
    };
    const [ES, PS, NS] = ["ES", "PS", "NS"].map(mean);
    const magnitude = (mean("EM") + mean("PM") + mean("NM")) / 3;
    scores.push({ layer, ES, PS, NS, score: harmonicScore(ES, PS, NS), magnitude });
  }
  const best = scores.toSorted((a, b) => b.score - a.score || b.magnitude - a.magnitude)[0];
  const { layers: _, ...used } = settings;
  return { layer: best.layer, layers: scores, settings: { method: "r-rome", ...used } };
}

/** At most eight layers over the depth, the recipe's among them; the last one has no layer above to read it. */
function spread(layers: number, recipe: unknown): number[] {
  const last = Math.max(0, layers - 2), n = Math.min(8, last + 1);
  const even = Array.from({ length: n }, (_, i) => n === 1 ? 0 : Math.round(i * last / (n - 1)));
  return [...new Set([...even, ...(recipe as number[])])].sort((a, b) => a - b);
}

async function byTrace(model: Model, cases: readonly EditCase[], { onProgress }: SuggestOptions) {
  if (cases.length === 0) {
    throw new InputError("The model knows none of the facts, so there is nothing to trace", {
      hint: "Give --dataset with facts that it knows, or use --by sweep",
    });
  }
  const requests = cases.map(({ requests: [{ prompt, subject, true: answer }] }) => ({
    prompt,
    subject,
    answer,
  }));
  const { traces, noise, window, samples, seed } = await trace(model, requests, {
    kinds: ["mlp"],
    onProgress,
  });
  const row = averageTraces(traces).kinds.mlp!.effects[TOKEN_CLASSES.indexOf("Last subject token")];
  const effects = row.map(({ mean, ci95 }, layer): LayerEffect => ({ layer, effect: mean, ci95 }));
  const { layer } = effects.toSorted((a, b) => b.effect - a.effect)[0];
  return { layer, layers: effects, settings: { kind: "mlp", window, noise, samples, seed } };
}
