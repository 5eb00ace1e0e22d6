/**
 * The element types a safetensors file can hold, their sizes, and a bitwise scan for NaN and infinity
 * that is cheap enough to run on every weight as it is uploaded.
 */

/** Bytes of one element, for every dtype that emend stores or copies. */
export const DTYPE_BYTES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  C64: 8,
} as const;

/** A dtype as a safetensors header spells it. */
export type StoredDtype = keyof typeof DTYPE_BYTES;

/** The dtypes that weights are kept in. */
export type WeightDtype = "F32" | "F16" | "BF16";

/** Whether the string names a dtype of `DTYPE_BYTES`. */
export function isStoredDtype(name: string): name is StoredDtype {
  return Object.hasOwn(DTYPE_BYTES, name);
}

/** Whether a dtype is one that weights are kept in. */
export function isWeightDtype(dtype: string): dtype is WeightDtype {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16";
}

/**
 * Index of the first NaN or infinity among the elements of `bytes`, or -1. All exponent bits set means
 * not finite in each of the three formats, so the scan is a mask and a compare.
 * @param info the dtype of the bytes (a `WeightInfo` will do)
 * @param bytes little-endian elements; a length that is no multiple of the element size is cut short
 */
export function findNonFinite(info: { dtype: WeightDtype }, bytes: Uint8Array): number {
  const wide = info.dtype === "F32";
  const size = wide ? 4 : 2;
  const count = Math.floor(bytes.length / size);
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  const words = wide
    ? new Uint32Array(aligned.buffer, aligned.byteOffset, count)
    : new Uint16Array(aligned.buffer, aligned.byteOffset, count);
  const mask = wide ? 0x7f800000 : info.dtype === "F16" ? 0x7c00 : 0x7f80;
  for (let i = 0; i < count; i++) {
    if ((words[i] & mask) === mask) return i;
  }
  return -1;
}

/** The F32 value of one IEEE half-precision number given by its 16 bits. */
export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
