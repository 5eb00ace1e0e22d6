/**
 * What training will hold, before anything is allocated (guide section 13.1: 16 bytes a trained number), and a
 * refusal where that is more than there is.
 */
import { availableMemory } from "../../engine/gpu/available.ts";
import { formatBytes } from "../../engine/gpu/memory.ts";
import { InputError } from "../../engine/io/errors.ts";
import { type Model, weight } from "../../engine/models/model.ts";
import { currentTensor } from "../../engine/models/replace.ts";
import { sizeOf } from "../../engine/tensor/tensor.ts";

/** The numbers that a training changes, and what each of them takes. */
export interface Trained {
  numbers: number;
  /** On the device while training runs. */
  deviceBytes: number;
  /** On the host afterwards: the edit. */
  hostBytes: number;
}

/** Weights themselves: the value, its gradient, Adam's two moments; where it started is the model's own. */
export function trainedTensors(model: Model, roles: readonly string[]): Trained {
  const numbers = roles.reduce((sum, role) => sum + sizeOf(currentTensor(model, role).shape), 0);
  return { numbers, deviceBytes: 16 * numbers, hostBytes: 4 * numbers };
}

/** Factors of maps; `kept` numbers are kept beside each on the device, of which AdaLoRA's allocator has two. */
export function trainedFactors(
  model: Model,
  roles: readonly string[],
  rank: number,
  kept: number,
): Trained {
  const numbers = roles.reduce((sum, role) => {
    const { out, in: inner } = weight(model, role);
    return sum + rank * (out + inner);
  }, 0);
  return { numbers, deviceBytes: (16 + 4 * kept) * numbers, hostBytes: 4 * numbers };
}

/**
 * Refuses a training that does not fit. Where nobody can say what there is (a GPU), the device has the last word.
 * @param workBytes of the activations of one update
 * @throws {InputError} with what is needed and what there is
 */
export function requireMemory(
  model: Model,
  method: string,
  { numbers, deviceBytes, hostBytes }: Trained,
  workBytes: number,
  available = availableMemory(model.gpu),
): void {
  // Only software drivers say what they have, and theirs is the host's.
  const needed = deviceBytes + workBytes + hostBytes;
  if (available === undefined || needed <= available) return;
  const count = numbers.toLocaleString("en");
  throw new InputError(
    `${method} needs ${formatBytes(needed)} of memory to train ${count} numbers of ${model.name}, and ` +
      `${formatBytes(available)} are free`,
    { hint: "Give it fewer layers (--set layers=[…]), or take ft-m or lora, which train little" },
  );
}
