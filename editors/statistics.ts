/**
 * Statistics of a layer's keys, C = E[k kᵀ] over ordinary text (ROME section 3.1, guide section 2), and
 * C⁻¹k from them. A file holds one layer: the lower triangle of C in f32 and where it comes from.
 */
import { z } from "npm:zod@4.6.7";
import type { Gpu } from "../engine/gpu/device.ts";
import { InputError } from "../engine/io/errors.ts";
import { openFile } from "../engine/io/source.ts";
import { parseSafetensors } from "../engine/io/safetensors.ts";
import { writeSafetensors } from "../engine/io/safetensors_write.ts";
import { factorSpd, type SpdFactor } from "../engine/linalg/cholesky.ts";
import { SecondMoment } from "../engine/linalg/moment.ts";

const FORMAT = "emend-statistics";

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
  /** Cosine of C⁻¹k between the last two halvings of the sample; absent when never measured. */
  convergence: z.number().optional(),
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
  /** C⁻¹ k for a key of a layer, in f64. @throws {InputError} when the layer has no statistics */
  solve(layer: number, key: Float64Array): Promise<Float64Array>;
  /** How the factorisations were computed, for reports: route, jitter, condition estimate. */
  routes(): { layer: number; route: string; jitter: number; condition: number }[];
}

/** Writes one layer's file, whole or not at all. */
export async function writeStatistics(path: string, { origin, lower }: LayerStatistics): Promise<void> {
  const metadata = { format: FORMAT, format_version: "1", origin: JSON.stringify(origin) };
  const bytes = new Uint8Array(lower.buffer, lower.byteOffset, lower.byteLength);
  const tensor = { name: "lower", dtype: "F32" as const, shape: [lower.length], data: () => [bytes] };
  await writeSafetensors(path, [tensor], metadata);
}

/** Reads one layer's file. @throws {InputError} when it is something else, or damaged */
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

/** Vectors of numbers with JSON metadata: what statistics files are made of. Dispose to close. */
export interface NumbersFile extends Disposable {
  /** @throws {InputError} when the entry is missing or does not fit the schema */
  metadata<T>(key: string, schema: z.ZodType<T>): T;
  /** A vector; undefined when there is none of that name and type. */
  read<A extends Float32Array | Float64Array>(
    name: string,
    type: { new (buffer: ArrayBuffer): A; BYTES_PER_ELEMENT: number },
  ): Promise<A | undefined>;
}

/** Opens a file of the given format. @throws {InputError} when it is something else, or damaged */
export async function openNumbers(path: string, format: string, what: string): Promise<NumbersFile> {
  const source = await openFile(path);
  try {
    const file = await parseSafetensors(source);
    if (file.metadata.format !== format) throw new InputError(`${path} is not ${what}`);
    return {
      metadata(key, schema) {
        try {
          return schema.parse(JSON.parse(file.metadata[key] ?? "null"));
        } catch (cause) {
          throw new InputError(`${path} is not ${what}: its metadata has a bad ${key}`, { cause });
        }
      },
      async read(name, type) {
        const entry = file.entries.get(name);
        if (entry?.dtype !== (type.BYTES_PER_ELEMENT === 4 ? "F32" : "F64")) return undefined;
        return new type((await file.read(entry)).slice().buffer as ArrayBuffer);
      },
      [Symbol.dispose]: () => source.close(),
    };
  } catch (error) {
    source.close();
    throw error;
  }
}

/**
 * Prepares solves with the given layers; factorisations are made when first needed and kept.
 * @param jitter ρ of C + ρ·tr(C)/F·I
 */
export function statisticsOf(gpu: Gpu, layers: readonly LayerStatistics[], jitter = 1e-6): Statistics {
  const byLayer = new Map(layers.map((l) => [l.origin.layer, l]));
  const factors = new Map<number, Promise<SpdFactor>>();
  const done = new Map<number, SpdFactor>();
  const factorOf = async (layer: number): Promise<SpdFactor> => {
    const statistics = byLayer.get(layer);
    if (!statistics) throw new InputError(`There are no statistics for layer ${layer}`);
    const { origin, lower } = statistics;
    using moment = new SecondMoment(gpu, `C of layer ${layer}`, origin.width);
    moment.load({ count: 1, lower: Float64Array.from(lower) });
    const factor = await factorSpd(gpu, moment, { name: `C of layer ${layer}`, jitter });
    done.set(layer, factor);
    return factor;
  };
  return {
    layers: new Map(layers.map((l) => [l.origin.layer, l.origin])),
    async solve(layer, key) {
      if (!factors.has(layer)) factors.set(layer, factorOf(layer));
      return await (await factors.get(layer)!).solve(key);
    },
    routes: () =>
      [...done].map(([layer, f]) => ({
        layer,
        route: f.route,
        jitter: f.jitter,
        condition: f.conditionEstimate,
      })),
    [Symbol.dispose]: () => done.forEach((f) => f.dispose()),
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
