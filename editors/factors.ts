/**
 * What closed-form methods compute from one layer's C, once: its Cholesky factor (C⁻¹k) and AlphaEdit's
 * projector (Fang et al. 2025, section 3.2; guide sections 8 and 13). Made when first asked for, and kept on
 * the disk: reading a factor takes a tenth of the time of making it, a projector far less.
 */
import type { Gpu } from "../engine/gpu/device.ts";
import { GpuError } from "../engine/gpu/errors.ts";
import { chooseRoute, factorSpd, type SpdFactor } from "../engine/linalg/cholesky.ts";
import { PivotError } from "../engine/linalg/host.ts";
import { SecondMoment } from "../engine/linalg/moment.ts";
import { unpackFactor } from "../engine/linalg/unpack.ts";
import { factorKey, readFactor, writeFactor } from "./factor_cache.ts";
import type { LayerStatistics } from "./statistics.ts";

/** P = I − Q Qᵀ, where Q holds the eigenvectors of C whose eigenvalue is at or above a threshold. */
export interface Projector {
  n: number;
  threshold: number;
  /** Dimension of the space that P keeps. */
  rank: number;
  /** Eigenvalues of C around the threshold, for reports. */
  near: number[];
  /** Rows of the lower triangle of the symmetric P, n·(n+1)/2. */
  lower: Float32Array;
}

/** Computes a projector from C, which is freed afterwards. */
export type MakeProjector = (
  gpu: Gpu,
  C: SecondMoment,
  options: { name: string; threshold: number },
) => Promise<Projector>;

/** Below this width a factor is made faster than found. */
const LEAST_CACHED = 256;

/** The factors and projectors of one layer. Dispose to free the factors. */
export class FactorStore implements Disposable {
  /** The factors that are there, and whether they came from the disk. */
  readonly made: { factor: SpdFactor; cached: boolean }[] = [];
  #gpu: Gpu;
  #statistics: LayerStatistics;
  #cache: boolean;
  /** By jitter. */
  #factors = new Map<number, Promise<SpdFactor>>();

  constructor(gpu: Gpu, statistics: LayerStatistics, cache: boolean) {
    this.#gpu = gpu;
    this.#statistics = statistics;
    this.#cache = cache && statistics.origin.width >= LEAST_CACHED;
  }

  get #name(): string {
    return `C of layer ${this.#statistics.origin.layer}`;
  }

  /** The factor of C + ρ·tr(C)/F·I. @throws {GpuError} naming the column where C is singular, and the remedy */
  factor(jitter: number): Promise<SpdFactor> {
    const factor = this.#factors.get(jitter) ?? this.#findFactor(jitter);
    this.#factors.set(jitter, factor);
    return factor;
  }

  async #findFactor(jitter: number): Promise<SpdFactor> {
    const key = this.#keyOf({ jitter, route: chooseRoute(this.#gpu, this.#statistics.origin.width) });
    const found = key ? await readFactor("cholesky", key) : undefined;
    const kept = found ? restored(this.#gpu, found) : undefined;
    if (kept) {
      this.made.push({ factor: kept, cached: true });
      return kept;
    }
    using moment = this.#moment();
    const factor = await factorSpd(this.#gpu, moment, { name: this.#name, jitter })
      .catch((error) => {
        throw error instanceof PivotError ? error.calling("mom2_jitter") : error;
      });
    if (key) await writeFactor("cholesky", key, await factor.pack());
    this.made.push({ factor, cached: false });
    return factor;
  }

  /** The projector of a threshold, from the disk or by `make`. */
  async projector(threshold: number, make: MakeProjector): Promise<Projector> {
    const key = this.#keyOf({ threshold });
    const found = key ? await readFactor("projector", key) : undefined;
    const kept = found ? unpackProjector(found) : undefined;
    if (kept) return kept;
    using moment = this.#moment();
    const projector = await make(this.#gpu, moment, { name: this.#name, threshold });
    if (key) await writeFactor("projector", key, packProjector(projector));
    return projector;
  }

  #keyOf(facts: Record<string, unknown>): string | undefined {
    return this.#cache ? factorKey(facts, this.#statistics.lower) : undefined;
  }

  #moment(): SecondMoment {
    const { origin, lower } = this.#statistics;
    const moment = new SecondMoment(this.#gpu, this.#name, origin.width);
    moment.load({ count: 1, lower });
    return moment;
  }

  [Symbol.dispose](): void {
    for (const { factor } of this.made) factor.dispose();
  }
}

/** The factor in the bytes; undefined when they are of another format, so that it is made anew. */
function restored(gpu: Gpu, bytes: Uint8Array): SpdFactor | undefined {
  try {
    return unpackFactor(gpu, bytes);
  } catch (error) {
    if (error instanceof GpuError) return undefined;
    throw error;
  }
}

/** A line of JSON padded to a multiple of 4, then the triangle. */
function packProjector({ lower, ...facts }: Projector): Uint8Array {
  const text = JSON.stringify(facts);
  const line = new TextEncoder().encode(text.padEnd(4 * Math.ceil((text.length + 1) / 4) - 1) + "\n");
  const bytes = new Uint8Array(line.length + lower.byteLength);
  bytes.set(line);
  bytes.set(new Uint8Array(lower.buffer, lower.byteOffset, lower.byteLength), line.length);
  return bytes;
}

/** What {@link packProjector} wrote; undefined when the numbers are not a triangle of its size. */
function unpackProjector(bytes: Uint8Array<ArrayBuffer>): Projector | undefined {
  const end = bytes.indexOf(10) + 1;
  const facts = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  const lower = new Float32Array(bytes.slice(end).buffer);
  return lower.length === facts.n * (facts.n + 1) / 2 ? { ...facts, lower } : undefined;
}
