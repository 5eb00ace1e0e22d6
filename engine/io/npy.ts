/** NumPy's .npy files: a magic string, a Python dictionary that describes the array, and its bytes. */
import { InputError, show } from "./errors.ts";
import type { NpzArray } from "./npz.ts";

/** Element types that are read, by NumPy's name for them. */
const ARRAYS = { "<f4": Float32Array, "<f8": Float64Array, "<i8": BigInt64Array } as const;

/**
 * Parses one file.
 * @param where what is read, for the error message
 * @throws InputError when it is damaged, in Fortran order, or of another type
 */
export function parseNpy(bytes: Uint8Array, where: string): NpzArray {
  const fail = (what: string) => new InputError(`Cannot read ${where}: ${what}`);
  const magic = String.fromCharCode(...bytes.subarray(0, 6));
  if (bytes.length < 12 || magic !== "\x93NUMPY") throw fail("it is not a .npy file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const wide = bytes[6] >= 2;
  const headerStart = wide ? 12 : 10;
  const headerEnd = headerStart + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  if (headerEnd > bytes.length) throw fail("its header is cut short");
  const header = new TextDecoder("latin1").decode(bytes.subarray(headerStart, headerEnd));

  const dtype = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const sizes = /'shape'\s*:\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (order === undefined || sizes === undefined) throw fail(`its header ${show(header)} is damaged`);
  if (dtype === undefined || !Object.hasOwn(ARRAYS, dtype)) {
    throw fail(`its type is ${dtype === undefined ? "structured" : show(dtype)}, not f4, f8 or i8`);
  }
  const shape = sizes.split(",").map((size) => size.trim()).filter((size) => size !== "").map(Number);
  if (order === "True" && shape.length > 1) throw fail("it is in Fortran order");

  const array = ARRAYS[dtype as keyof typeof ARRAYS];
  const count = shape.reduce((product, size) => product * size, 1);
  const expected = count * array.BYTES_PER_ELEMENT;
  if (!Number.isSafeInteger(expected) || expected !== bytes.length - headerEnd) {
    throw fail(
      `[${shape}] of ${dtype} is ${expected} bytes, but ${bytes.length - headerEnd} follow the header`,
    );
  }
  // A copy is aligned. Not slice(): on a Node Buffer, which zlib returns, that is a view.
  return { shape, data: new array(new Uint8Array(bytes.subarray(headerEnd)).buffer) };
}
