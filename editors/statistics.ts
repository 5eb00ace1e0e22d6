/**
 * Statistics of a layer's keys, C = E[k kᵀ] over ordinary text (ROME section 3.1, guide section 2), and
 * C⁻¹k from them. A file holds one layer: the lower triangle of C in f32 and where it comes from.
 */
import { z } from "npm:zod@4.6.7";
import type { Gpu } from "../engine/gpu/device.ts";
import { InputError } from "../engine/io/errors.ts";
import { writeSafetensors } from "../engine/io/safetensors_write.ts";
import { FactorStore, type MakeProjector, type Projector } from "./factors.ts";
import { openNumbers } from "./numbers_file.ts";

const FORMAT = "emend-statistics";

/** ρ of C + ρ·tr(C)/F·I: enough to factor what rounding made singular, too little to change any solution. */
export const DEFAULT_JITTER = 1e-6;

/** How far C⁻¹k of watched keys turned when the sample doubled to `tokens`, in degrees. */
export const lookSchema = z.object({ tokens: z.number(), median: z.number(), worst: z.number() });
export type Look = z.infer<typeof lookSchema>;

const originSchema = z.object({
  modelHash: z.string(),
  layer: z.number().int().min(0),
  /** Key width F. */
  width: z.number().int().min(1),
  corpusHash: z.string(),
  corpusName: z.string(),
  /** Tokens and documents seen. */
  tokens: z.number().int().min(1),
  documents: z.number().int().min(1),
  /** Tokens of a document at most. */
  maxLength: z.number().int().min(1),
  /** The collection ended by its own rule, not by a kill. */
  complete: z.boolean(),
  /** Median cosine of C⁻¹k between half of the sample and all of it, at the last look; absent without one. */
  convergence: z.number().optional(),
  /** Every look, one a doubling of the sample. */
  looks: z.array(lookSchema).optional(),
  /** What the collection was asked for: tokens at most, and the cosine at which it may end. */
  settings: z.object({ tokens: z.number(), converged: z.number() }).optional(),
  /** The file of another program that the statistics were read from. */
  imported: z.string().optional(),
});

/** Where statistics come from; all of it is in the file's metadata. */
export type StatisticsOrigin = z.infer<typeof originSchema>;

/** C of one layer on the host. */
export interface LayerStatistics {
  origin: StatisticsOrigin;
  /** Rows of the lower triangle of the mean C, F·(F+1)/2. */
  lower: Float32Array;
}

/** What closed-form editors ask for. */
export interface Statistics extends Disposable {
  readonly layers: ReadonlyMap<number, StatisticsOrigin>;
  /**
   * (C + ρ·tr(C)/F·I)⁻¹ K of a layer, in f64: `keys` holds `count` keys of length F one after another, and so does
   * the result.
   * @param jitter ρ; 1e-6 when absent
   * @throws {InputError} when the layer has no statistics; {GpuError} when C is singular
   */
  solve(layer: number, keys: Float64Array, count?: number, jitter?: number): Promise<Float64Array>;
  /**
   * The projector of a layer and threshold (AlphaEdit): from the cache, else by `make`, which is given C.
   * @throws {InputError} when the layer has no statistics
   */
  projector(layer: number, threshold: number, make: MakeProjector): Promise<Projector>;
  /** How the factorisations were computed, for reports: route, jitter, condition estimate, from the cache? */
  routes(): { layer: number; route: string; jitter: number; condition: number; cached: boolean }[];
}

/** Writes one layer's file, whole or not at all. */
export async function writeStatistics(path: string, { origin, lower }: LayerStatistics): Promise<void> {
  const metadata = { format: FORMAT, format_version: "1", origin: JSON.stringify(origin) };
  const bytes = new Uint8Array(lower.buffer, lower.byteOffset, lower.byteLength);
  const tensor = { name: "lower", dtype: "F32" as const, shape: [lower.length], data: () => [bytes] };
  await writeSafetensors(path, [tensor], metadata);
}

/** Where one layer's file comes from, without its numbers. @throws {InputError} as `readStatistics` does */
export async function readOrigin(path: string): Promise<StatisticsOrigin> {
  using file = await openNumbers(path, FORMAT, "a statistics file");
  return file.metadata("origin", originSchema);
}

/** Reads one layer's file. @throws {InputError} when it is something else, damaged, or of another dtype */
export async function readStatistics(path: string): Promise<LayerStatistics> {
  using file = await openNumbers(path, FORMAT, "a statistics file");
  const origin = file.metadata("origin", originSchema);
  const { width } = origin;
  const lower = await file.read("lower", Float32Array);
  if (lower?.length !== width * (width + 1) / 2) {
    throw new InputError(`${path} holds ${lower?.length ?? 0} numbers, not the triangle of width ${width}`);
  }
  const bad = lower.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0) throw new InputError(`${path} holds a value that is not finite, at element ${bad}`);
  return { origin, lower };
}

/**
 * Prepares solves with the given layers; factorisations are made when first needed and kept, one a jitter.
 * @param cache keep factors and projectors on the disk, too, for the next edit
 */
export function statisticsOf(
  gpu: Gpu,
  layers: readonly LayerStatistics[],
  cache = false,
): Statistics {
  const stores = new Map(layers.map((l) => [l.origin.layer, new FactorStore(gpu, l, cache)]));
  const storeOf = (layer: number) => {
    const store = stores.get(layer);
    if (!store) throw new InputError(`There are no statistics for layer ${layer}`);
    return store;
  };
  return {
    layers: new Map(layers.map((l) => [l.origin.layer, l.origin])),
    async solve(layer, keys, count = 1, jitter = DEFAULT_JITTER) {
      return await (await storeOf(layer).factor(jitter)).solve(keys, count);
    },
    async projector(layer, threshold, make) {
      return await storeOf(layer).projector(threshold, make);
    },
    routes: () =>
      [...stores].flatMap(([layer, { made }]) =>
        made.map(({ factor: { route, jitter, conditionEstimate: condition }, cached }) => (
          { layer, route, jitter, condition, cached }
        ))
      ),
    [Symbol.dispose]: () => stores.forEach((store) => store[Symbol.dispose]()),
  };
}

/**
 * Refuses statistics of another model, layer or width.
 * @throws {InputError} naming both sides
 */
export function requireStatistics(
  origin: StatisticsOrigin,
  model: { hash: string; name: string },
  layer: number,
  width: number,
  path: string,
): void {
  const refuse = (what: string) => {
    throw new InputError(`${path} does not fit: ${what}`, { hint: "Make statistics with the stats command" });
  };
  if (origin.modelHash !== model.hash) {
    refuse(
      `it was made from model ${origin.modelHash.slice(0, 12)}, ${model.name} is ${model.hash.slice(0, 12)}`,
    );
  }
  if (origin.layer !== layer) refuse(`it is of layer ${origin.layer}, layer ${layer} is wanted`);
  if (origin.width !== width) refuse(`its keys have ${origin.width} numbers, the layer's have ${width}`);
}
