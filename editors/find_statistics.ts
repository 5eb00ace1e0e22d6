/**
 * Where the statistics of an edit come from: files the user names, files beside the model, or the user's
 * cache, in this order. All are checked against model, layer and width.
 */
import { join } from "node:path";
import { cacheFolder } from "../engine/io/cache.ts";
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import {
  type LayerStatistics,
  readStatistics,
  requireStatistics,
  type Statistics,
  statisticsOf,
} from "./statistics.ts";

/** The cache's file of one layer and corpus. */
export function cachedStatisticsPath(
  modelHash: string,
  layer: number,
  corpusHash: string,
  maxLength: number,
): string {
  const name = `layer-${layer}-${corpusHash.slice(0, 12)}-${maxLength}.safetensors`;
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
  options: { files?: readonly string[]; jitter?: number } = {},
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
      let path: string;
      [path, statistics] = await onDisk(model, hash, layer);
      fits(statistics, layer, path);
    }
    found.push(statistics);
  }
  return statisticsOf(model.gpu, found, options.jitter);
}

async function onDisk(model: LoadedModel, hash: string, layer: number): Promise<[string, LayerStatistics]> {
  const shipped = shippedStatisticsPath(model.checkpoint.path, layer);
  if (await exists(shipped)) return [shipped, await readStatistics(shipped)];
  const folder = join(cacheFolder(), "statistics", hash.slice(0, 16));
  let best: [string, LayerStatistics] | undefined;
  for (const name of await filesOf(folder)) {
    if (!name.startsWith(`layer-${layer}-`) || !name.endsWith(".safetensors")) continue;
    const path = join(folder, name);
    const statistics = await readStatistics(path);
    if (!best || statistics.origin.tokens > best[1].origin.tokens) best = [path, statistics];
  }
  if (best) return best;
  throw new InputError(`There are no statistics for layer ${layer} of ${model.name}`, {
    hint:
      `Make them once: deno run -A cli.ts stats --model ${model.name} --layers ${layer} --corpus TEXT_FILE ` +
      `(or edit with --set mom2_adjustment=false, at the cost of locality)`,
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
