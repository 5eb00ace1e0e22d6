/** Reading elements of a matrix that is stored in f32, f16 or bf16 through an array of words. */
import weights from "../../shaders/lib/weights.wgsl" with { type: "text" };

/** Allowed values of a variant `dtype`. */
export const WEIGHT_DTYPES = ["f32", "f16", "bf16"] as const;

/** WGSL of `load_weight(index) -> f32` over the u32 binding of this name. */
export function loadWeight(binding: string, dtype: unknown): string {
  const body = dtype === "f32"
    ? `bitcast<f32>(${binding}[index])`
    : `${dtype}_element(${binding}[index / 2u], index)`;
  return `${weights}\nfn load_weight(index: u32) -> f32 { return ${body}; }`;
}
