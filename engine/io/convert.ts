/** Stored bytes ↔ f32 on the host, for small vectors and for saving edited matrices. */
import { halfToFloat, type WeightDtype } from "./dtypes.ts";

/** Decodes little-endian elements. */
export function toFloat32(dtype: WeightDtype, bytes: Uint8Array): Float32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  if (dtype === "F32") {
    return new Float32Array(aligned.buffer, aligned.byteOffset, bytes.byteLength / 4).slice();
  }
  const words = new Uint16Array(aligned.buffer, aligned.byteOffset, bytes.byteLength / 2);
  const out = new Float32Array(words.length);
  if (dtype === "BF16") {
    const bits = new Uint32Array(out.buffer);
    for (let i = 0; i < words.length; i++) bits[i] = words[i] << 16;
    return out;
  }
  for (let i = 0; i < words.length; i++) out[i] = halfToFloat(words[i]);
  return out;
}

/** Encodes to the nearest representable value, ties to even. */
export function fromFloat32(dtype: WeightDtype, values: Float32Array): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.slice().buffer);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  if (dtype === "BF16") {
    for (let i = 0; i < bits.length; i++) out[i] = floatToBrain(bits[i]);
  } else {
    for (let i = 0; i < bits.length; i++) out[i] = floatToHalf(bits[i]);
  }
  return new Uint8Array(out.buffer);
}

/** The bits of an f32 rounded to bf16, ties to even; a NaN stays one. */
function floatToBrain(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** The bits of an f32 rounded to f16, ties to even; overflow becomes infinity. */
function floatToHalf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const exponent = (bits >>> 23) & 255;
  const mantissa = bits & 0x7fffff;
  if (exponent === 255) return sign | 0x7c00 | (mantissa ? 0x200 : 0);
  const e = exponent - 112;
  if (e >= 31) return sign | 0x7c00;
  if (e > 0) {
    const rounded = (e << 10 | mantissa >>> 13) + roundEven(mantissa & 0x1fff, 0x1000, (mantissa >>> 13) & 1);
    return sign | rounded;
  }
  if (e < -10) return sign;
  const full = mantissa | 0x800000;
  const shift = 14 - e;
  const kept = full >>> shift;
  return sign | kept + roundEven(full & ((1 << shift) - 1), 1 << (shift - 1), kept & 1);
}

function roundEven(rest: number, half: number, odd: number): number {
  return rest > half || (rest === half && odd) ? 1 : 0;
}
