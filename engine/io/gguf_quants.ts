/**
 * GGML's tensor types: sizes of all that a GGUF file may list, and the dequantisation of those that emend
 * reads. Every block decodes in F32 arithmetic, in the order ggml does it, so results agree bit for bit.
 */
import { halfToFloat, type WeightDtype } from "./dtypes.ts";

/** One tensor type: `block` elements take `bytes` bytes. */
export interface GgmlType {
  name: string;
  block: number;
  bytes: number;
}

const type = (name: string, block: number, bytes: number): GgmlType => ({ name, block, bytes });

/** By the number that a file holds. Types outside this table are refused. */
export const GGML_TYPES: ReadonlyMap<number, GgmlType> = new Map([
  [0, type("F32", 1, 4)],
  [1, type("F16", 1, 2)],
  [2, type("Q4_0", 32, 18)],
  [3, type("Q4_1", 32, 20)],
  [6, type("Q5_0", 32, 22)],
  [7, type("Q5_1", 32, 24)],
  [8, type("Q8_0", 32, 34)],
  [9, type("Q8_1", 32, 40)],
  [10, type("Q2_K", 256, 84)],
  [11, type("Q3_K", 256, 110)],
  [12, type("Q4_K", 256, 144)],
  [13, type("Q5_K", 256, 176)],
  [14, type("Q6_K", 256, 210)],
  [15, type("Q8_K", 256, 292)],
  [16, type("IQ2_XXS", 256, 66)],
  [17, type("IQ2_XS", 256, 74)],
  [18, type("IQ3_XXS", 256, 98)],
  [19, type("IQ1_S", 256, 50)],
  [20, type("IQ4_NL", 32, 18)],
  [21, type("IQ3_S", 256, 110)],
  [22, type("IQ2_S", 256, 82)],
  [23, type("IQ4_XS", 256, 136)],
  [24, type("I8", 1, 1)],
  [25, type("I16", 1, 2)],
  [26, type("I32", 1, 4)],
  [27, type("I64", 1, 8)],
  [28, type("F64", 1, 8)],
  [29, type("IQ1_M", 256, 56)],
  [30, type("BF16", 1, 2)],
  [34, type("TQ1_0", 256, 54)],
  [35, type("TQ2_0", 256, 66)],
  [39, type("MXFP4", 32, 17)],
  [40, type("NVFP4", 64, 36)],
  [41, type("Q1_0", 128, 18)],
]);

/** The dtype that a tensor of the named type is served in, or undefined when emend cannot read the type. */
export function servedDtype(name: string): WeightDtype | undefined {
  if (name === "F16" || name === "BF16") return name;
  return name === "F32" || Object.hasOwn(DECODERS, name) ? "F32" : undefined;
}

/** Names of the types that `servedDtype` accepts, for error messages. */
export function readableTypes(): string {
  return ["F32", "F16", "BF16", ...Object.keys(DECODERS)].join(", ");
}

/**
 * Decodes whole blocks to F32. F32, F16 and BF16 come back as they are stored.
 * @param name a type that `servedDtype` accepts
 * @param stored whole blocks
 * @returns little-endian elements of `servedDtype(name)`
 */
export function dequantise(name: string, stored: Uint8Array): Uint8Array {
  const decoder = DECODERS[name];
  if (decoder === undefined) return stored;
  const { blockBytes, decode } = decoder;
  const blocks = stored.length / blockBytes;
  const out = new Float32Array(blocks * 32);
  for (let b = 0; b < blocks; b++) decode(stored, b * blockBytes, out, b * 32);
  return new Uint8Array(out.buffer);
}

interface Decoder {
  blockBytes: number;
  /** Decodes the block at byte `at` of `stored` into 32 elements from `to` of `out`. */
  decode(stored: Uint8Array, at: number, out: Float32Array, to: number): void;
}

/** Every f16 scale by its bits: 256 KiB once, instead of a conversion for each block. */
let halves: Float32Array | undefined;

function halfAt(bytes: Uint8Array, at: number): number {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits));
  return halves[bytes[at] | (bytes[at + 1] << 8)];
}

const DECODERS: Record<string, Decoder> = {
  /** d f16, q i8[32]: x = d·q */
  Q8_0: {
    blockBytes: 34,
    decode(stored, at, out, to) {
      const d = halfAt(stored, at);
      for (let i = 0; i < 32; i++) out[to + i] = d * ((stored[at + 2 + i] << 24) >> 24);
    },
  },
  /** d f16, 16 bytes of nibbles (low: elements 0–15, high: 16–31): x = d·(q − 8) */
  Q4_0: {
    blockBytes: 18,
    decode(stored, at, out, to) {
      const d = halfAt(stored, at);
      for (let i = 0; i < 16; i++) {
        const pair = stored[at + 2 + i];
        out[to + i] = d * ((pair & 15) - 8);
        out[to + i + 16] = d * ((pair >> 4) - 8);
      }
    },
  },
  /** d f16, m f16, nibbles as in Q4_0: x = d·q + m. d·q is exact in F32 (15 significant bits at most). */
  Q4_1: {
    blockBytes: 20,
    decode(stored, at, out, to) {
      const d = halfAt(stored, at);
      const m = halfAt(stored, at + 2);
      for (let i = 0; i < 16; i++) {
        const pair = stored[at + 4 + i];
        out[to + i] = d * (pair & 15) + m;
        out[to + i + 16] = d * (pair >> 4) + m;
      }
    },
  },
};
