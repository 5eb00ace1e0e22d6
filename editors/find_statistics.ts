/**
 * Where the statistics of an edit come from: files the user names, files beside the model, or the user's
 * cache, in this order. All are checked against model, layer and width. Factors of them are cached, too.
 */
import { join } from "node:path";
import { cacheFolder } from "../engine/io/cache.ts";
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import {
  type LayerStatistics,
  readOrigin,
  readStatistics,
  requireStatistics,
  type Statistics,
  statisticsOf,
} from "./statistics.ts";

/** What makes two collections of one model and layer the same. */
export interface CollectSettings {
  corpusHash: string;
  /** Tokens of a document at most. */
  maxLength: number;
  /** Tokens at most. */
  tokens: number;
  /** The cosine of C⁻¹k at which the collection may end. */
  converged: number;
}

/** The cache's file of one layer, named by all that decides its content. */
export function cachedStatisticsPath(modelHash: string, layer: number, settings: CollectSettings): string {
  const { corpusHash, maxLength, tokens, converged } = settings;
  const name = `layer-${layer}-${corpusHash.slice(0, 12)}-${maxLength}-${tokens}-${converged}.safetensors`;
  return join(cacheFolder(), "statistics", modelHash.slice(0, 16), name);
}

/** The file beside a model folder. */
export function shippedStatisticsPath(modelPath: string, layer: number): string {
  return join(modelPath, "statistics", `layer-${layer}.safetensors`);
}

/**
 * Finds statistics for all layers.
 * @throws {InputError} naming the layer that has none and the command that makes them, or a file that is of
 *   another model or layer
 */
export async function findStatistics(
  model: LoadedModel,
  layers: readonly number[],
  options: { files?: readonly string[] } = {},
): Promise<Statistics> {
  const hash = await model.checkpoint.hash();
  const found: LayerStatistics[] = [];
  const named = new Map<number, LayerStatistics>();
  const fits = ({ origin }: LayerStatistics, layer: number, path: string) =>
    requireStatistics(origin, { hash, name: model.name }, layer, model.dims.inner, path);
  for (const path of options.files ?? []) {
    const statistics = await readStatistics(path);
    const { layer } = statistics.origin;
    fits(statistics, layers.includes(layer) ? layer : layers[0], path);
    named.set(layer, statistics);
  }
  for (const layer of layers) {
    let statistics = named.get(layer);
    if (!statistics) {
      const path = await onDisk(model, hash, layer);
      statistics = await readStatistics(path);
      fits(statistics, layer, path);
    }
    found.push(statistics);
  }
  return statisticsOf(model.gpu, found, true);
}

/** The file beside the model, else the cache's of most tokens. */
async function onDisk(model: LoadedModel, hash: string, layer: number): Promise<string> {
  const shipped = shippedStatisticsPath(model.checkpoint.path, layer);
  if (await exists(shipped)) return shipped;
  const folder = join(cacheFolder(), "statistics", hash.slice(0, 16));
  let best: { path: string; tokens: number } | undefined;
  for (const name of await filesOf(folder)) {
    if (!name.startsWith(`layer-${layer}-`) || !name.endsWith(".safetensors")) continue;
    const path = join(folder, name);
    const { tokens } = await readOrigin(path);
    if (!best || tokens > best.tokens) best = { path, tokens };
  }
  if (best) return best.path;
  throw new InputError(`There are no statistics for layer ${layer} of ${model.name}`, {
    hint:
      `Make them once: deno run -A cli.ts stats --model ${model.name} --layers ${layer} --corpus TEXT_FILE ` +
      `(ROME and its variants can do without: --set mom2_adjustment=false, at the cost of locality)`,
  });
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function filesOf(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder))).map((e) => e.name).sort();
  } catch {
    return [];
  }
}
