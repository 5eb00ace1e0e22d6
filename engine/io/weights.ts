/** What both kinds of checkpoint share: looking up a weight, checking rows, cutting bytes into pieces. */
import type { WeightDtype } from "./dtypes.ts";
import { InputError, show } from "./errors.ts";

/** One weight as it is served. `shape` is the transformers shape, outermost dimension first. */
export interface WeightInfo {
  name: string;
  dtype: WeightDtype;
  shape: number[];
}

/** A run of a weight's bytes. `byteOffset` counts from the weight's first element. */
export interface WeightPiece {
  byteOffset: number;
  bytes: Uint8Array;
}

/** What `pieces` yields at most, by default; engine-notes section 5 has the upload figures. */
export const PIECE_BYTES = 8 * 2 ** 20;

/** @throws InputError when the model has no weight of that name */
export function findWeight(weights: Map<string, WeightInfo>, name: string, path: string): WeightInfo {
  const info = weights.get(name);
  if (info === undefined) throw new InputError(`No weight ${show(name)} in ${path}`);
  return info;
}

/** @throws InputError when rows [row0, row0 + rows) are not all there */
export function checkRows({ name, shape }: WeightInfo, row0: number, rows: number): void {
  const whole = Number.isSafeInteger(row0) && Number.isSafeInteger(rows) && row0 >= 0 && rows >= 0;
  if (!whole || row0 + rows > (shape[0] ?? 1)) {
    throw new InputError(`Cannot read rows ${row0} to ${row0 + rows} of ${show(name)} [${shape}]`);
  }
}

/** Cuts `total` bytes into runs of at most `maxBytes`, each but the last a multiple of 4. */
export function* piecesOf(
  total: number,
  maxBytes: number = PIECE_BYTES,
): Generator<{ byteOffset: number; length: number }> {
  const step = Math.max(4, Math.floor(maxBytes / 4) * 4);
  for (let byteOffset = 0; byteOffset < total; byteOffset += step) {
    yield { byteOffset, length: Math.min(step, total - byteOffset) };
  }
}
