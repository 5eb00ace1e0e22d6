/** Symmetric matrices on the host: the lower triangle packed row by row, as statistics files hold it. */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import type { SpdMatrix } from "./matrix.ts";
import { realBytes } from "./panels.ts";

/** Rows 0, 1, 2, … of a lower triangle one after another: n(n + 1)/2 numbers. */
export interface Packed {
  readonly n: number;
  readonly lower: Float32Array | Float64Array;
}

/** Reads a matrix on the device, low words added and weighted. A wait a row block. */
export async function readPackedMatrix(gpu: Gpu, { n, real, weight, blocks }: SpdMatrix): Promise<Packed> {
  const lower = new Float64Array(n * (n + 1) / 2);
  for (const { storage, lo, row, rows, ld } of blocks) {
    for (const words of lo ? [storage, lo] : [storage]) {
      const [raw] = await gpu.read({ buffer: words as GpuBuffer, bytes: rows * ld * realBytes(real) });
      const values = real === "f64" ? new Float64Array(raw) : new Float32Array(raw);
      for (let i = row; i < Math.min(n, row + rows); i++) {
        const at = i * (i + 1) / 2;
        for (let j = 0; j <= i; j++) lower[at + j] += values[(i - row) * ld + j] * weight;
      }
    }
  }
  return { n, lower };
}

/**
 * A copy divided by a power of two so that its largest element is in (1/2, 1], and that power.
 * @throws {GpuError} when the size is wrong or a number is not finite
 */
export function normalised(name: string, { n, lower }: Packed): { matrix: Packed; unit: number } {
  if (lower.length !== n * (n + 1) / 2) {
    throw new GpuError(
      `Cannot decompose ${name} [${n}, ${n}]: its lower triangle has ${n * (n + 1) / 2} numbers, not ` +
        `${lower.length}`,
    );
  }
  let most = 0;
  for (let i = 0; i < lower.length; i++) {
    const size = Math.abs(lower[i]);
    if (!(size < Infinity)) {
      throw new GpuError(
        `Cannot decompose ${name} [${n}, ${n}]: element ${i} of its triangle is ${lower[i]}`,
      );
    }
    if (size > most) most = size;
  }
  const unit = most > 0 ? 2 ** Math.ceil(Math.log2(most)) : 1;
  return { matrix: { n, lower: (lower as Float64Array).map((v) => v / unit) }, unit };
}
