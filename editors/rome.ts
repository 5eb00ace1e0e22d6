/**
 * ROME, Rank-One Model Editing (Meng et al. 2022, section 3), R-ROME (Gupta et al. 2024, arXiv 2403.07175) and
 * the p-ROME variant of the same paper. One fact, one layer, one outer product:
 *
 *   k̄ = mean of the keys over contexts, k_b the bare prompt's key, u = C⁻¹ k
 *   ROME     ΔW = δ uᵀ / (u·k_b)                          u from k̄, constraint at k_b
 *   R-ROME   ΔW = (v0 + δ − mean of W k_j + b) uᵀ / (u·k̄)   k̄ everywhere
 *   p-ROME   ΔW = δ uᵀ / (u·k_b)                          k_b everywhere
 *
 * so that the edited W maps its key exactly to v* = v0 + δ.
 */
import type { Model } from "../engine/models/model.ts";
import { contexts } from "./contexts.ts";
import type { Edit, EditOutcome, WeightDelta } from "./edit.ts";
import { applyDeltas } from "./edit.ts";
import { requireLayers, type RomeHparams } from "./hparams.ts";
import type { EditMemory } from "./memory.ts";
import {
  type EditRequest,
  fill,
  requireConsistent,
  requireRoom,
  tokenisePrompt,
  tokeniseTarget,
  validateRequest,
} from "./requests.ts";
import { regularised } from "./regularise.ts";
import type { Statistics } from "./statistics.ts";
import type { TargetCache } from "./target_cache.ts";
import { optimiseTargets, type Target, type TargetRequest } from "./targets.ts";

export type RomeVariant = "rome" | "r-rome" | "p-rome";

/** What an editor is given beside the requests. */
export interface EditOptions<Hparams> {
  hparams: Hparams;
  /** Second moments of the edited layer's keys; not needed when `mom2_adjustment` is false. */
  statistics?: Statistics;
  /** Seed of the context templates. */
  seed?: number;
  /** Targets that are on the disk already; only for a model without edits. */
  targets?: TargetCache;
  /** What the edits before this one asked to remember, in a sequence of edits. */
  memory?: EditMemory;
  onProgress?: (done: number, total: number) => void;
}

/** Below this share of the mean key, ROME's denominator is unreliable (guide section 3.4). */
const KEY_RATIO = 0.1;

/**
 * Tokenises a request in all contexts: what the target optimisation needs.
 * @throws {InputError} when prompt, context and target together do not fit the model's context
 */
export function romeTarget(model: Model, request: EditRequest, texts: readonly string[]): TargetRequest {
  const { tokenizer } = model;
  const { prompt, subject, target } = request;
  const prompts = texts.map((context) => tokenisePrompt(tokenizer, fill(prompt, subject, context)));
  const ids = tokeniseTarget(tokenizer, prompts[0], target);
  const longest = Math.max(...prompts.map((p) => p.ids.length));
  requireRoom(longest + ids.length - 1, model.dims, `The prompt "${prompt}" with a context and its target`);
  return {
    prompts,
    target: ids,
    kl: tokenisePrompt(tokenizer, fill("{} is a", subject)),
  };
}

/**
 * Edits one request after another, each on the model with the earlier ones applied. The model is left as it
 * was; the returned edit holds one rank-one delta a request.
 */
export async function rome(
  model: Model,
  requests: readonly EditRequest[],
  variant: RomeVariant,
  options: EditOptions<RomeHparams>,
): Promise<Edit> {
  const { hparams, statistics, seed = 0 } = options;
  requireLayers(model, hparams.layers);
  const valid = requests.map((r, i) =>
    validateRequest(r, requests.length > 1 ? `Request ${i + 1}` : undefined)
  );
  requireConsistent(valid);
  const texts = await contexts(model, hparams.context_template_length_params, seed);
  const deltas: WeightDelta[] = [];
  const outcomes: EditOutcome[] = [];
  using applied = new DisposableStack();
  for (const [i, request] of valid.entries()) {
    const [layer] = hparams.layers;
    const wanted = [romeTarget(model, request, texts)], how = { ...hparams, layer };
    // Only the first request meets the weights that the cache is about.
    const cache = i === 0 ? options.targets : undefined;
    const [target] = await (cache?.targets(wanted, how) ?? optimiseTargets(model, wanted, how));
    const solve = async (key: Float64Array) =>
      hparams.mom2_adjustment ? await statistics!.solve(layer, key, 1, hparams.mom2_jitter) : key;
    const { left, right, keyRatio } = await romeUpdate(variant, target, solve);
    const delta = await regularised(
      model,
      { role: `layer.${layer}.mlp.down`, rank: 1, left, right },
      hparams,
    );
    deltas.push(delta);
    outcomes.push({
      steps: target.losses.length,
      losses: target.losses,
      warnings: warningsOf(variant, keyRatio),
    });
    if (i + 1 < valid.length) applied.use(applyDeltas(model, [delta]));
    options.onProgress?.(i + 1, valid.length);
  }
  return { method: variant, hparams: { ...hparams }, requests: valid, deltas, outcomes };
}

/**
 * The closed form, in f64 on the host: vectors only.
 * @param solve C⁻¹ k, or the identity for C = I
 */
export async function romeUpdate(
  variant: RomeVariant,
  target: Target,
  solve: (key: Float64Array) => Promise<Float64Array>,
): Promise<{ left: Float32Array; right: Float32Array; keyRatio: number; u: Float64Array }> {
  const { delta, v0, keys, outputs } = target;
  const mean = meanOf(keys);
  const bare = Float64Array.from(keys[0]);
  const u = normalised(await solve(variant === "p-rome" ? bare : mean));
  const atMean = dot(u, mean), atBare = dot(u, bare);
  let residual = Float64Array.from(delta);
  if (variant === "r-rome") {
    const current = meanOf(outputs);
    residual = residual.map((d, i) => v0[i] + d - current[i]);
  }
  const divisor = variant === "r-rome" ? atMean : atBare;
  return {
    left: Float32Array.from(residual, (r) => r / divisor),
    right: Float32Array.from(u),
    keyRatio: atBare / atMean,
    u,
  };
}

function warningsOf(variant: RomeVariant, keyRatio: number): string[] {
  if (variant !== "rome" || keyRatio >= KEY_RATIO) return [];
  return [
    `The bare key has only ${
      keyRatio.toFixed(3)
    } of the mean key along C⁻¹k̄: this edit may damage the model; ` +
    "use --method r-rome",
  ];
}

function meanOf(vectors: readonly Float32Array[]): Float64Array {
  const mean = new Float64Array(vectors[0].length);
  for (const v of vectors) for (let i = 0; i < mean.length; i++) mean[i] += v[i] / vectors.length;
  return mean;
}

function normalised(v: Float64Array): Float64Array {
  const norm = Math.sqrt(dot(v, v));
  return v.map((x) => x / norm);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
