/**
 * The rope_scaling entry of a config, recovered from a GGUF file. Linear and YaRN scaling are in the
 * metadata; Llama 3's is only there as a tensor of the divisors that it gives, so its parameters are
 * found by trying the published ones and comparing.
 */
import { InputError } from "./errors.ts";
import type { GgufFile } from "./gguf.ts";

/** The factors that Llama 3.1 and 3.2 were released with; the other parameters never varied. */
const LLAMA3_FACTORS = [8, 32, 16, 4];

/**
 * @param headDim elements of one head
 * @returns a config's rope_scaling, or undefined when positions are not scaled
 * @throws InputError for scalings that have no config form we know
 */
export async function ropeScalingOf(
  file: GgufFile,
  architecture: string,
  headDim: number,
): Promise<Record<string, unknown> | undefined> {
  const get = (name: string) => file.metadata.get(`${architecture}.rope.${name}`);
  const original = get("scaling.original_context_length");
  const originalLength = typeof original === "number" ? { original_max_position_embeddings: original } : {};
  const divisors = file.tensors.get("rope_freqs.weight");
  if (divisors !== undefined) {
    const bytes = await file.source.read(divisors.offset, divisors.bytes);
    if (divisors.type.name !== "F32" || divisors.shape.length !== 1 || divisors.shape[0] !== headDim / 2) {
      throw new InputError(
        `Tensor rope_freqs.weight [${divisors.shape}] of ${file.source.name} should be F32 [${headDim / 2}]`,
      );
    }
    const values = new Float32Array(new Uint8Array(bytes).buffer);
    if (values.some((value) => value !== 1)) return llama3Scaling(file, architecture, headDim, values);
  }
  const type = get("scaling.type");
  const factor = get("scaling.factor") ?? get("scale_linear");
  if (type === undefined && factor === undefined || type === "none" || factor === 1) return undefined;
  if (type === "linear" || type === "yarn" || type === undefined) {
    return { rope_type: type ?? "linear", factor, ...originalLength };
  }
  throw new InputError(
    `${file.source.name} scales rotary positions by ${JSON.stringify(type)}, which emend lacks`,
  );
}

function llama3Scaling(file: GgufFile, architecture: string, headDim: number, values: Float32Array) {
  const base = file.metadata.get(`${architecture}.rope.freq_base`);
  const theta = typeof base === "number" ? base : 10000;
  for (const factor of LLAMA3_FACTORS) {
    const expected = llama3Divisors(theta, headDim, factor);
    if (expected.every((value, i) => Math.abs(value - values[i]) <= 1e-4 * value)) {
      return {
        rope_type: "llama3",
        factor,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 8192,
      };
    }
  }
  throw new InputError(`The rotary divisors of ${file.source.name} match no rope scaling that emend knows`);
}

/** What divides each rotary frequency under Llama 3's scaling (as in llama.cpp's converter). */
export function llama3Divisors(theta: number, headDim: number, factor: number): number[] {
  const low = 1, high = 4, length = 8192;
  return Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** (2 * i / headDim);
    if (wavelength < length / high) return 1;
    if (wavelength > length / low) return factor;
    const smooth = (length / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}
