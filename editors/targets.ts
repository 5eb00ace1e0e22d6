/**
 * Target optimisation: the vector δ that, added to the stream at the subject's last token, makes the model say
 * the target (ROME's v*, Meng et al. 2022 section 3.1 equation 4; MEMIT's z, Meng et al. 2023 equation 16; guide
 * section 1.4).
 *
 *   L(δ) = mean over contexts of −log p(target) + kl·KL(p_δ ‖ p_0) at "{subject}" + wd·‖δ‖/‖v0‖²
 *
 * Many edits are optimised together in one replayed plan; each stops on its own, and the others go on without its
 * rows. What does not depend on δ is
 * computed once: layers up to the edited one, and the keys and values of all tokens before the subject's last.
 * A step computes the rows from there on, the layers above, and the head at loss rows only. All of it is exact
 * by causality (guide section 14, savings 1–6 and 8).
 */
import { GpuError } from "../engine/gpu/errors.ts";
import { InputError } from "../engine/io/errors.ts";
import type { Model } from "../engine/models/model.ts";
import { estimateEdit } from "./estimate.ts";
import type { TokenisedPrompt } from "./requests.ts";
import { PARTS, partsOf } from "./target_items.ts";
import { Workspace } from "./target_workspace.ts";

/** A prompt in its contexts, and how it should go on. */
export interface TargetPart {
  /** The prompt after each context, the bare one first. */
  prompts: TokenisedPrompt[];
  /** Ids of the wanted continuation. */
  target: number[];
}

/** One edit as token ids. */
export interface TargetRequest extends TargetPart {
  /** "{subject} is a"; only the tokens up to the subject's last matter. */
  kl: TokenisedPrompt;
  /** More prompts about the subject that the same δ must serve, each with its target. */
  also?: TargetPart[];
}

/** Hyper-parameters of the optimisation, under the names that the field's files use. */
export interface TargetOptions {
  /** The layer whose MLP output, or what is the same its block's output, δ is added to. */
  layer: number;
  v_num_grad_steps: number;
  v_lr: number;
  v_weight_decay: number;
  clamp_norm_factor: number;
  kl_factor: number;
  /** Multiplies the NLL (PMET). Default 1. */
  nll_loss_factor?: number;
  /**
   * PMET: where the wanted token is the likeliest everywhere, the NLL counts `factor` times in the next step, and an
   * edit stops at a KL of at most `kl`.
   */
  sure?: { factor: number; kl: number };
  /** Stop below this loss. Default 0.05, the reference's. */
  threshold?: number;
  /** What v0 and `outputs` are: the MLP's output (ROME, PMET) or the block's (MEMIT). Default "mlp". */
  reference?: "mlp" | "block";
  /** A second δ is added to the attention's output of the layer and optimised beside it (PMET). */
  attention?: boolean;
  /** Device memory of edits optimised together, MiB; more edits go in several batches. Default unlimited. */
  work_mib?: number;
}

/** The result of one edit. */
export interface Target {
  /** δ [D] */
  delta: Float32Array;
  /** The reference vector at the bare prompt's subject-last, [D]. */
  v0: Float32Array;
  /** The same at every context's subject-last, [D] each, part after part. */
  outputs: Float32Array[];
  /** Keys k_j: inputs of the down projection at every context's subject-last, [F] each. */
  keys: Float32Array[];
  /** Loss terms of each step taken. */
  losses: { nll: number; kl: number; wd: number }[];
}

/**
 * Optimises the targets of all requests, as many together as the memory budget holds. Waits for the GPU twice a
 * batch, and every few steps where leaving out edits that have stopped is worth it.
 * @param onBatch is given the targets of each batch as it is done
 * @throws {GpuError} when a loss is not finite, naming edit and step; {InputError} when one edit alone is over
 *   the budget
 */
export async function optimiseTargets(
  model: Model,
  requests: readonly TargetRequest[],
  options: TargetOptions,
  onBatch?: (made: readonly Target[], first: number) => void | Promise<void>,
): Promise<Target[]> {
  const targets: Target[] = [];
  for (const batch of targetBatches(model, requests, options)) {
    const made = await optimiseBatch(model, batch, options, targets.length);
    await onBatch?.(made, targets.length);
    targets.push(...made);
  }
  return targets;
}

/**
 * Requests in order, as many a batch as fit the budget and the device's largest binding.
 * @throws {InputError} when one alone is over the budget
 */
export function targetBatches(
  { dims, gpu }: Pick<Model, "dims" | "gpu">,
  requests: readonly TargetRequest[],
  { layer, v_num_grad_steps: steps, attention = false, work_mib: budget = Infinity }: TargetOptions,
): TargetRequest[][] {
  const from = attention ? layer - 1 : layer;
  const widest = 4 * Math.max(dims.inner, 3 * dims.width);
  const largest = Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
  const batches: TargetRequest[][] = [];
  let bytes = 0, rows = 0;
  for (const [i, request] of requests.entries()) {
    const estimate = estimateEdit(dims, request, { layer: from, steps });
    const mib = estimate.workBytes / 2 ** 20;
    if (mib > budget) {
      throw new InputError(
        `The target of edit ${i}${textOf(request)} needs about ${
          Math.ceil(mib)
        } MiB, more than the ${budget} allowed`,
        { hint: "Raise work_mib" },
      );
    }
    bytes += estimate.workBytes;
    rows += estimate.prepareRows;
    const fits = bytes <= budget * 2 ** 20 && rows * widest <= largest;
    if (fits && batches.length) batches.at(-1)!.push(request);
    else {
      batches.push([request]);
      [bytes, rows] = [estimate.workBytes, estimate.prepareRows];
    }
  }
  return batches;
}

/** @param before edits of earlier batches, for error texts */
async function optimiseBatch(
  model: Model,
  requests: readonly TargetRequest[],
  options: TargetOptions,
  before: number,
): Promise<Target[]> {
  using work = new Workspace(model, requests, options);
  const { keys, outputs, attention } = await work.prepare();
  const contexts = requests.map((r) => partsOf(r).reduce((n, part) => n + part.prompts.length, 0));
  const firsts = contexts.map((_, e) => contexts.slice(0, e).reduce((a, b) => a + b, 0));
  const v0 = firsts.map((first) => outputs[first]);
  const beside = attention && firsts.map((first) => attention[first]);
  const { deltas, history, taken, bad } = await work.optimise(beside ? [v0, beside] : [v0]);
  const failed = bad.findIndex((step) => step > 0);
  if (failed >= 0) {
    throw new GpuError(
      `The loss of edit ${before + failed}${textOf(requests[failed])} is not finite at step ${
        bad[failed] - 1
      }`,
    );
  }
  return requests.map((_, e) => ({
    delta: deltas[e],
    v0: v0[e],
    outputs: outputs.slice(firsts[e], firsts[e] + contexts[e]),
    keys: keys.slice(firsts[e], firsts[e] + contexts[e]),
    losses: Array.from({ length: taken[e] + 1 }, (_, step) => {
      const [nll, kl, wd] = history.subarray((step * requests.length + e) * PARTS);
      return { nll, kl, wd };
    }),
  }));
}

/** The prompt in error texts, where there is one. */
function textOf({ prompts: [{ text }] }: TargetRequest): string {
  return text ? ` ("${text}")` : "";
}
