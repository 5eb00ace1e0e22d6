/**
 * A low-rank patch as a PEFT LoRA adapter, so that an edit runs wherever LoRA adapters do. LoRA adds
 * (alpha / r) · B A x with A [r, in] and B [out, r]; here B = left, A = rightᵀ and alpha = r: the scale is 1.
 */
import { join } from "node:path";
import { writeFileAtomic, writeFolderAtomic } from "../engine/io/atomic.ts";
import { fromFloat32 } from "../engine/io/convert.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { type TensorOut, writeSafetensors } from "../engine/io/safetensors.ts";
import type { LowRankDelta, Patch } from "./patch.ts";
import { requireWeights } from "./prompt_patch.ts";

/**
 * Writes adapter_config.json and adapter_model.safetensors, atomically. Every factor is filled up with zeros
 * to the largest rank: loaders that know no rank pattern then scale by 1 too.
 * @param dir a new or empty folder, or an earlier adapter, which is replaced
 * @throws {InputError} when a tensor's change has no low rank, or the folder cannot be written
 */
export async function writePeft(dir: string, patch: Patch): Promise<void> {
  requireWeights(patch, "a PEFT adapter");
  const deltas = patch.deltas.map((delta): LowRankDelta => {
    if (delta.kind === "low-rank") return delta;
    throw new InputError(
      `Cannot write a PEFT adapter to ${dir}: the change of ${show(delta.tensor)} has no low rank`,
      { hint: "Where it has one but was saved without, emend patch diff --max-rank finds it" },
    );
  });
  const rank = Math.max(...deltas.map(({ ranks }) => ranks.length));
  const modules = deltas.map(({ tensor }) => tensor.replace(/\.weight$/, ""));
  const tensors = deltas.flatMap((delta, i) => loraTensors(`base_model.model.${modules[i]}`, delta, rank));
  const config = {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: patch.base.name,
    inference_mode: true,
    r: rank,
    lora_alpha: rank,
    lora_dropout: 0,
    bias: "none",
    // Full names: exactly the changed layers, nothing that merely ends alike.
    target_modules: modules,
    fan_in_fan_out: deltas.some(({ layout }) => layout === "in_out"),
  };
  await writeFolderAtomic(dir, async (folder) => {
    await writeFileAtomic(join(folder, "adapter_config.json"), JSON.stringify(config, null, 2) + "\n");
    await writeSafetensors(join(folder, "adapter_model.safetensors"), tensors, { format: "pt" });
  });
}

function loraTensors(module: string, { left, right, ranks }: LowRankDelta, rank: number): TensorOut[] {
  const own = ranks.length;
  const inner = right.length / own, out = left.length / own;
  const a = new Float32Array(rank * inner), b = new Float32Array(out * rank);
  for (let r = 0; r < own; r++) {
    for (let i = 0; i < inner; i++) a[r * inner + i] = right[i * own + r];
    for (let o = 0; o < out; o++) b[o * rank + r] = left[o * own + r];
  }
  const tensor = (part: string, shape: number[], values: Float32Array): TensorOut => ({
    name: `${module}.${part}.weight`,
    dtype: "F32",
    shape,
    data: () => [fromFloat32("F32", values)],
  });
  return [tensor("lora_A", [rank, inner], a), tensor("lora_B", [out, rank], b)];
}
