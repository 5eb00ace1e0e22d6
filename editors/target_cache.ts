/**
 * Optimised targets on the disk. A target depends on the weights, the request in its contexts and the options
 * of the optimisation, not on what a method makes of it: ROME, R-ROME and p-ROME share theirs, as do batches
 * of different sizes (the MEMIT code keeps its z vectors in the same way). Only for unedited weights.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { cacheFolder } from "../engine/io/cache.ts";
import { openFile } from "../engine/io/source.ts";
import { parseSafetensors, writeSafetensors } from "../engine/io/safetensors.ts";
import type { Model } from "../engine/models/model.ts";
import { optimiseTargets, type Target, type TargetOptions, type TargetRequest } from "./targets.ts";

/** Counts the optimisations that there have been: what another one made is no target of this one. */
const VERSION = 1;

/** A place for targets of one model's unedited weights. */
export interface TargetCache {
  /** The optimisation's results, those that are known read from the disk; the others are optimised together. */
  targets(requests: readonly TargetRequest[], options: TargetOptions): Promise<Target[]>;
  /** How many were read since the last call. */
  taken(): number;
}

/**
 * The cache of a model.
 * @param weights the fingerprint of its unedited weights
 */
export function targetCache(model: Model, weights: string): TargetCache {
  const folder = join(cacheFolder(), "targets", weights.slice(0, 16));
  const about = [VERSION, model.gpu.description, weights];
  let read = 0;
  const pathOf = (request: TargetRequest, options: TargetOptions) => {
    const { layer, v_num_grad_steps, v_lr, v_weight_decay, clamp_norm_factor, kl_factor } = options;
    const chosen = [layer, v_num_grad_steps, v_lr, v_weight_decay, clamp_norm_factor, kl_factor];
    const { reference = "mlp", attention = false, nll_loss_factor = 1, sure } = options;
    // Left out where they are ROME's, so that its targets keep the names that they had before there were others.
    const more = reference === "mlp" && !attention && nll_loss_factor === 1
      ? []
      : [reference, attention, nll_loss_factor, ...(sure ? [sure] : [])];
    const key = JSON.stringify([about, request, chosen, options.threshold, ...more]);
    return join(folder, `${createHash("sha256").update(key).digest("hex").slice(0, 32)}.safetensors`);
  };
  return {
    async targets(requests, options) {
      const paths = requests.map((request) => pathOf(request, options));
      const known = await Promise.all(paths.map((path) => readTarget(path).catch(() => undefined)));
      const missing = requests.flatMap((_, i) => known[i] ? [] : [i]);
      read += requests.length - missing.length;
      if (missing.length === 0) return known as Target[];
      await optimiseTargets(model, missing.map((i) => requests[i]), options, async (made, first) => {
        for (const [at, target] of made.entries()) {
          const i = missing[first + at];
          known[i] = target;
          // Only a convenience: a full disk must not end a run.
          await writeTarget(paths[i], target).catch(() => {});
        }
      });
      return known as Target[];
    },
    taken() {
      const count = read;
      read = 0;
      return count;
    },
  };
}

async function writeTarget(path: string, target: Target): Promise<void> {
  const { delta, v0, outputs, keys, losses } = target;
  const matrix = (name: string, rows: readonly Float32Array[]) => ({
    name,
    dtype: "F32" as const,
    shape: [rows.length, rows[0].length],
    data: () => rows.map((row) => new Uint8Array(row.buffer, row.byteOffset, row.byteLength)),
  });
  await writeSafetensors(path, [
    matrix("delta", [delta]),
    matrix("v0", [v0]),
    matrix("outputs", outputs),
    matrix("keys", keys),
  ], { format: "emend-target", losses: JSON.stringify(losses) });
}

async function readTarget(path: string): Promise<Target> {
  const source = await openFile(path);
  using _closing = { [Symbol.dispose]: () => source.close() };
  const file = await parseSafetensors(source);
  const rows = async (name: string) => {
    const entry = file.entries.get(name)!;
    const values = new Float32Array((await file.read(entry)).slice().buffer);
    const [count, width] = entry.shape;
    return Array.from({ length: count }, (_, i) => values.slice(i * width, (i + 1) * width));
  };
  const [delta] = await rows("delta"), [v0] = await rows("v0");
  const [outputs, keys] = [await rows("outputs"), await rows("keys")];
  return { delta, v0, outputs, keys, losses: JSON.parse(file.metadata.losses) };
}
