/**
 * Triangles on the host: packed row by row, n(n+1)/2 numbers; and the bytes of a factor
 * (or of a null space) for a cache:
 *
 *     u32 header length | header (JSON: facts, then name, type and length of every part) | parts, 8-aligned
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Real } from "../kernels/linalg.ts";
import type { FactorFacts } from "./native.ts";
import { createPanels, type Panels, realBytes } from "./panels.ts";

/** The arrays of a packed factor by name. */
export type Parts = Record<string, Float32Array | Float64Array>;

const FORMAT = "emend spd factor 1";

/** Reads a triangle: rows 0, 1, 2, … of its lower half one after another. A wait a panel. */
export async function readPacked(
  gpu: Gpu,
  { n, real, panels }: Panels,
): Promise<Float32Array | Float64Array> {
  const packed = real === "f64" ? new Float64Array(n * (n + 1) / 2) : new Float32Array(n * (n + 1) / 2);
  for (const { storage, row, rows, ld } of panels) {
    const [raw] = await gpu.read({ buffer: storage, bytes: rows * ld * realBytes(real) });
    const values = real === "f64" ? new Float64Array(raw) : new Float32Array(raw);
    for (let i = row; i < Math.min(n, row + rows); i++) {
      packed.set(values.subarray((i - row) * ld, (i - row) * ld + i + 1), i * (i + 1) / 2);
    }
  }
  return packed;
}

/** Overwrites a triangle of the same size; the padding gets `padding` on its diagonal. */
export function writePacked(
  gpu: Gpu,
  { n, real, panels }: Panels,
  packed: ArrayLike<number>,
  padding = 0,
): void {
  const source = real === "f64" ? Float64Array.from(packed) : Float32Array.from(packed);
  for (const { storage, row, rows, ld } of panels) {
    const values = real === "f64" ? new Float64Array(rows * ld) : new Float32Array(rows * ld);
    for (let i = row; i < row + rows; i++) {
      const at = (i - row) * ld;
      if (i < n) values.set(source.subarray(i * (i + 1) / 2, (i + 1) * (i + 2) / 2) as never, at);
      else values[at + i] = padding;
    }
    gpu.upload(storage, new Uint8Array(values.buffer));
  }
}

/** A new triangle with packed content. */
export function panelsFrom(
  gpu: Gpu,
  label: string,
  n: number,
  real: Real,
  packed: ArrayLike<number>,
  options: { padding?: number; maxShardBytes?: number } = {},
): Panels {
  const panels = createPanels(gpu, label, n, real, options.maxShardBytes);
  writePacked(gpu, panels, packed, options.padding);
  return panels;
}

/** Header of a packed factor. */
export interface PackedFacts extends FactorFacts {
  route: "host" | "f64" | "compensated";
}

/** Writes a factor's facts and arrays. */
export function packParts(facts: PackedFacts, parts: Parts): Uint8Array<ArrayBuffer> {
  const { route, name, n, jitter, shift, weight, conditionEstimate } = facts;
  return packArrays(FORMAT, { route, name, n, jitter, shift, weight, conditionEstimate }, parts);
}

/** Reads what {@link packParts} wrote. @throws {GpuError} when the bytes are not a factor or are cut short */
export function unpackParts(bytes: Uint8Array): { facts: PackedFacts; parts: Parts } {
  return unpackArrays<PackedFacts>(FORMAT, "a factor", bytes);
}

/** Writes facts and arrays in the layout above. */
export function packArrays(format: string, facts: object, parts: Parts): Uint8Array<ArrayBuffer> {
  const list = Object.entries(parts).map((
    [part, v],
  ) => [part, v instanceof Float64Array ? "f64" : "f32", v.length]);
  const header = new TextEncoder().encode(JSON.stringify({ format, ...facts, parts: list }));
  const entries = Object.values(parts);
  const size = entries.reduce((at, v) => align8(at) + v.byteLength, align8(4 + header.length));
  const bytes = new Uint8Array(size);
  new DataView(bytes.buffer).setUint32(0, header.length, true);
  bytes.set(header, 4);
  entries.reduce((at, v) => {
    bytes.set(new Uint8Array(v.buffer, v.byteOffset, v.byteLength), align8(at));
    return align8(at) + v.byteLength;
  }, 4 + header.length);
  return bytes;
}

/**
 * Reads what {@link packArrays} wrote.
 * @throws {GpuError} when the bytes are not `what` in that format, or are cut short
 */
export function unpackArrays<F>(format: string, what: string, bytes: Uint8Array): { facts: F; parts: Parts } {
  const bad = (why: string) => new GpuError(`Cannot read ${what} from ${bytes.byteLength} bytes: ${why}`);
  if (bytes.byteLength < 8) throw bad("the header is cut short");
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  if (4 + length > bytes.byteLength) throw bad("the header is cut short");
  let header: F & { format: string; parts: [string, Real, number][] };
  try {
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  } catch {
    throw bad("the header is not JSON");
  }
  if (header?.format !== format) throw bad(`its format is ${header?.format}, not "${format}"`);
  const { format: _, parts: list, ...facts } = header;
  let at = 4 + length;
  const parts = Object.fromEntries(list.map(([part, real, count]) => {
    at = align8(at);
    const end = at + count * realBytes(real);
    if (end > bytes.byteLength) throw bad(`${part} is cut short`);
    const raw = bytes.slice(at, end).buffer;
    at = end;
    return [part, real === "f64" ? new Float64Array(raw) : new Float32Array(raw)];
  }));
  return { facts: facts as unknown as F, parts };
}

function align8(n: number): number {
  return Math.ceil(n / 8) * 8;
}
