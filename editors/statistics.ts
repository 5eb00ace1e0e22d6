/**
 * Statistics of a layer's keys, C = E[k kᵀ] over ordinary text (ROME section 3.1, guide section 2), and
 * C⁻¹k from them. A file holds one layer: the lower triangle of C in f32 and where it comes from.
 */
import type { Gpu } from "../engine/gpu/device.ts";
import { InputError } from "../engine/io/errors.ts";
import { openFile } from "../engine/io/source.ts";
import { parseSafetensors } from "../engine/io/safetensors.ts";
import { writeSafetensors } from "../engine/io/safetensors_write.ts";
import { factorSpd, type SpdFactor } from "../engine/linalg/cholesky.ts";
import { SecondMoment } from "../engine/linalg/moment.ts";

const FORMAT = "emend-statistics";

/** Where statistics come from; all of it is in the file's metadata. */
export interface StatisticsOrigin {
  modelHash: string;
  layer: number;
  /** Key width F. */
  width: number;
  corpusHash: string;
  corpusName: string;
  /** Tokens and documents seen. */
  tokens: number;
  documents: number;
  /** Tokens of a document at most. */
  maxLength: number;
  /** The collection ended by its own rule, not by a kill. */
  complete: boolean;
  /** Cosine of C⁻¹k between the last two halvings of the sample; absent when never measured. */
  convergence?: number;
}

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
  const source = await openFile(path);
  try {
    const file = await parseSafetensors(source);
    const entry = file.entries.get("lower");
    if (file.metadata.format !== FORMAT || !entry || entry.dtype !== "F32") {
      throw new InputError(`${path} is not a statistics file`);
    }
    const origin: StatisticsOrigin = JSON.parse(file.metadata.origin ?? "null");
    const { width } = origin ?? {};
    if (!width || entry.shape[0] !== width * (width + 1) / 2) {
      throw new InputError(`${path} holds ${entry.shape[0]} numbers, not the triangle of width ${width}`);
    }
    const lower = new Float32Array((await file.read(entry)).slice().buffer);
    return { origin, lower };
  } finally {
    source.close();
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
