/**
 * The space that AlphaEdit may write in (locate-and-edit guide, section 8): the eigenvectors of a second
 * moment C whose eigenvalues are below an absolute threshold. C = H T Hᵀ by Householder reflections on the
 * device, the eigenproblem of T by divide and conquer on the host, and only the smaller of the two spaces on
 * either side of the threshold is taken back, since P = N Nᵀ = I − Q Qᵀ.
 *
 * How well the space is known: a computed eigenvalue is off by some u·‖C‖, u = 2⁻⁵² in f64 and 2⁻⁴⁴ in
 * two-float numbers, and the space turns by that error over the gap between the two eigenvalues next to the
 * threshold (Davis & Kahan 1970). {@link NullSpace.error} says it for this matrix.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Route } from "./cholesky.ts";
import { tridiagonalEigen } from "./divide.ts";
import { tridiagonaliseHost } from "./host_tridiagonal.ts";
import { type SpdMatrix, tensorMatrix } from "./matrix.ts";
import { packArrays, unpackArrays } from "./pack.ts";
import { normalised, type Packed, readPackedMatrix } from "./packed.ts";
import { tridiagonalise } from "./tridiagonalise.ts";
import { allocWide, decodeWide, encodeWide, WIDE_BYTES, wideOf } from "./wide.ts";

/** Options of {@link nullSpace}. */
export interface NullSpaceOptions {
  /** Names the matrix in errors. */
  name: string;
  /** Absolute, in the units of C: eigenvalues below it are kept. AlphaEdit's configurations say 2e-2. */
  threshold: number;
  /** Default "auto": host up to n = 64, else f64 where the device has it, else compensated, else host. */
  route?: Route | "auto";
  /** Largest buffer in bytes; default the device's binding limit. Tests make it small. */
  maxShardBytes?: number;
  /** Columns of C reduced so far: most of the time. */
  onProgress?: (done: number, n: number) => void;
}

/** Eigenvalues, and an orthonormal basis of one side of the threshold. Plain data: it can be stored. */
export interface NullSpace {
  readonly name: string;
  readonly n: number;
  readonly route: Route;
  readonly threshold: number;
  /** Dimensions kept: eigenvalues below the threshold. The trace of P. */
  readonly rank: number;
  /** All n eigenvalues of C, ascending. */
  readonly eigenvalues: Float64Array;
  /** Up to six eigenvalues on either side of the threshold. */
  readonly near: Float64Array;
  /** Between the eigenvalues next to the threshold; infinite when all are on one side. */
  readonly gap: number;
  /** First-order estimate of ‖P − P exact‖₂ from rounding, u·√n·‖C‖/gap. */
  readonly error: number;
  /** Which space the basis spans: the kept one (P = N Nᵀ) or the removed one (P = I − Q Qᵀ). */
  readonly spans: "kept" | "removed";
  /** Rows of length n: min(rank, n − rank) of them. */
  readonly basis: Float64Array;
}

const FORMAT = "emend null space 1";

/** A null space as bytes, for a cache. */
export function packNullSpace({ eigenvalues, near: _, basis, ...facts }: NullSpace): Uint8Array<ArrayBuffer> {
  // JSON has no infinity, which a gap may be; both follow from the eigenvalues.
  const { gap: __, error: ___, ...plain } = facts;
  return packArrays(FORMAT, plain, { eigenvalues, basis });
}

/** Reads what {@link packNullSpace} wrote. @throws {GpuError} when the bytes are something else or cut short */
export function unpackNullSpace(bytes: Uint8Array): NullSpace {
  type Facts = Pick<NullSpace, "name" | "n" | "route" | "threshold" | "rank" | "spans">;
  const { facts, parts } = unpackArrays<Facts>(FORMAT, "a null space", bytes);
  const { name, n, route, threshold, rank, spans } = facts;
  const count = spans === "kept" ? rank : n - rank;
  if (parts.eigenvalues?.length !== n || parts.basis?.length !== count * n) {
    throw new GpuError(`Cannot restore the null space of ${name}: its arrays are not of size ${n}`);
  }
  const eigenvalues = Float64Array.from(parts.eigenvalues);
  const basis = Float64Array.from(parts.basis);
  return { name, n, route, threshold, rank, spans, basis, ...describeSplit(eigenvalues, rank, route) };
}

/** Eigenvalues shown on either side of the threshold. */
const NEAR = 6;

/** What one operation rounds to, roughly. */
const UNIT: Record<Route, number> = { f64: 2 ** -52, host: 2 ** -52, compensated: 2 ** -44 };

/**
 * Splits C at the threshold. The same device and route give the same bits.
 * @param C [n, n] f32 or f64, a second moment on the device, or a packed lower triangle on the host
 * @throws {GpuError} when the threshold is not a number ≥ 0, C is not square or not finite, or does not fit
 */
export async function nullSpace(
  gpu: Gpu,
  C: Tensor | SpdMatrix | Packed,
  options: NullSpaceOptions,
): Promise<NullSpace> {
  const { name, threshold } = options;
  if (!(threshold >= 0 && threshold < Infinity)) {
    throw new GpuError(`Cannot split ${name} at the threshold ${threshold}`);
  }
  const packed = await packedOf(gpu, C);
  const { n } = packed;
  const route = chooseRoute(gpu, n, options.route);
  const { matrix, unit } = normalised(name, packed);
  const split = (values: Float64Array) => {
    const rank = values.reduce((count, v) => v * unit < threshold ? count + 1 : count, 0);
    return rank <= n - rank ? [0, rank] as const : [rank, n] as const;
  };
  const { values, basis } = route === "host"
    ? onHost(matrix, split)
    : await onDevice(gpu, matrix, split, route, options);
  const eigenvalues = values.map((v) => v * unit);
  const rank = eigenvalues.reduce((count, v) => v < threshold ? count + 1 : count, 0);
  const spans = rank <= n - rank ? "kept" : "removed";
  return { name, n, route, threshold, rank, spans, basis, ...describeSplit(eigenvalues, rank, route) };
}

/** What the eigenvalues say about a split. */
function describeSplit(eigenvalues: Float64Array, rank: number, route: Route) {
  const n = eigenvalues.length;
  const gap = rank > 0 && rank < n ? eigenvalues[rank] - eigenvalues[rank - 1] : Infinity;
  const size = Math.max(Math.abs(eigenvalues[0]), Math.abs(eigenvalues[n - 1]));
  const near = eigenvalues.slice(Math.max(0, rank - NEAR), rank + NEAR);
  return { eigenvalues, near, gap, error: UNIT[route] * Math.sqrt(n) * size / gap };
}

type Split = (values: Float64Array) => readonly [number, number];

function onHost(matrix: Packed, split: Split) {
  const reduced = tridiagonaliseHost(matrix);
  const { values, vectors } = tridiagonalEigen(reduced.diagonal, reduced.beside, split);
  reduced.back(vectors, vectors.length / matrix.n);
  return { values, basis: vectors };
}

async function onDevice(
  gpu: Gpu,
  matrix: Packed,
  split: Split,
  route: "f64" | "compensated",
  { name, maxShardBytes, onProgress }: NullSpaceOptions,
) {
  const { n } = matrix;
  const wide = wideOf(gpu, route);
  using reduced = await tridiagonalise(gpu, name, matrix, { wide, maxShardBytes, onProgress });
  const { ld } = reduced;
  const { values, vectors } = tridiagonalEigen(reduced.diagonal, reduced.beside, split);
  const count = vectors.length / n;
  const limit = maxShardBytes ?? Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
  const rows = Math.min(count, Math.floor(limit / (ld * WIDE_BYTES)));
  for (let first = 0; first < count; first += rows) {
    const m = Math.min(rows, count - first);
    const padded = new Float64Array(m * ld);
    for (let r = 0; r < m; r++) padded.set(vectors.subarray((first + r) * n, (first + r + 1) * n), r * ld);
    const z = allocWide(gpu, `${name} eigenvectors`, m * ld);
    try {
      gpu.upload(z, encodeWide(padded, wide));
      await reduced.back(z, m);
      const [raw] = await gpu.read({ buffer: z, bytes: m * ld * WIDE_BYTES });
      const back = decodeWide(raw, wide);
      for (let r = 0; r < m; r++) vectors.set(back.subarray(r * ld, r * ld + n), (first + r) * n);
    } finally {
      gpu.memory.free(z);
    }
  }
  return { values, basis: vectors };
}

async function packedOf(gpu: Gpu, C: Tensor | SpdMatrix | Packed): Promise<Packed> {
  if ("lower" in C) return C;
  if (!("shape" in C)) return await readPackedMatrix(gpu, C);
  if (C.shape.length !== 2 || C.shape[0] !== C.shape[1]) {
    throw new GpuError(`Cannot split ${C.label} [${C.shape.join(", ")}]: it is not square`);
  }
  return await readPackedMatrix(gpu, tensorMatrix(C));
}

function chooseRoute(gpu: Gpu, n: number, route: Route | "auto" = "auto"): Route {
  if (route !== "auto") return route;
  if (n <= 64) return "host";
  if (gpu.numerics.f64) return "f64";
  return gpu.numerics.compensated ? "compensated" : "host";
}
