/** What all trained editors are: numbers on the device, and a way from an edit's gradients to factors of ΔW. */
import { InputError } from "../../engine/io/errors.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import type { RowFactors } from "../../engine/ops/factored.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost } from "../../engine/tensor/transfer.ts";
import type { Gradients } from "./gradients.ts";
import type { Continuation } from "./texts.ts";

/** A trained tensor. */
export interface Parameter {
  name: string;
  tensor: Tensor;
  /** Multiplies the learning rate. */
  rate: number;
}

/** An edit as editors that read it get it. */
export interface EditText extends Continuation {
  group: number;
  before?: readonly number[];
}

/** What a network is asked. */
export interface Asked {
  gradients: Gradients;
  edits: readonly EditText[];
  /** Edited models in the batch. */
  groups: number;
  /** Whether statistics learn from these rows too. */
  learn: boolean;
  /** Whatever the plan needs for as long as it lives. */
  owned: DisposableStack;
}

/** A hyper-network. Dispose to free it. */
export interface Hypernetwork extends Disposable {
  /** The edited maps. */
  readonly roles: readonly string[];
  readonly parameters: readonly Parameter[];
  /** Kept, but not trained by gradients; f32 or u32. */
  readonly buffers: ReadonlyMap<string, Tensor>;
  /**
   * An edit's own loss is the sum over its tokens instead of the mean over all edits made together: its rows are the
   * same however many those are.
   */
  readonly perToken?: boolean;
  /** What must stay is compared at the tokens of its answer instead of at all. */
  readonly locAtAnswer?: boolean;
  /** ΔW of each map, in factors; gradients flow to the parameters. Subtracting or adding is settled in them. */
  factors(ctx: Ctx, asked: Asked): Map<string, RowFactors>;
}

/** Numbers by name, for starts and for files. */
export type Numbers = ReadonlyMap<string, Float32Array | Uint32Array>;

/** Numbers of a file. @throws {InputError} when they are not those of the network that its head describes */
function given(numbers: Numbers, name: string, shape: readonly number[], dtype: "f32" | "u32") {
  const values = numbers.get(name);
  const is = values instanceof Uint32Array ? "u32" : "f32";
  const size = shape.reduce((a, b) => a * b, 1);
  if (values?.length === size && is === dtype) return values;
  throw new InputError(
    `The editor does not fit the maps that it names: its ${name} ` +
      (values ? `holds ${values.length} ${is} numbers, ${size} ${dtype} are wanted` : "is missing"),
  );
}

/** Makes and keeps a network's tensors: from given numbers, or from a rule where there are none. */
export class TensorStore implements Disposable {
  readonly parameters: Parameter[] = [];
  readonly buffers = new Map<string, Tensor>();
  #gpu: Gpu;
  #numbers?: Numbers;
  #owned = new DisposableStack();

  constructor(gpu: Gpu, numbers?: Numbers) {
    this.#gpu = gpu;
    this.#numbers = numbers;
  }

  /** A trained tensor; `fill` gives its start, zeros without. */
  parameter(name: string, shape: number[], fill?: (i: number) => number, rate = 1): Tensor {
    const tensor = this.#make(name, shape, fill);
    this.parameters.push({ name, tensor, rate });
    return tensor;
  }

  /** A tensor that is kept with them. */
  buffer(name: string, shape: number[], dtype: "f32" | "u32" = "f32"): Tensor {
    const tensor = this.#make(name, shape, undefined, dtype);
    this.buffers.set(name, tensor);
    return tensor;
  }

  /** A constant. */
  constant(name: string, values: Uint32Array): Tensor {
    return this.#keep(fromHost(this.#gpu, name, [values.length], values, { owner: "editor" }));
  }

  #make(name: string, shape: number[], fill?: (i: number) => number, dtype: "f32" | "u32" = "f32"): Tensor {
    const options = { owner: "editor", dtype };
    const size = shape.reduce((a, b) => a * b, 1);
    if (this.#numbers) {
      return this.#keep(fromHost(this.#gpu, name, shape, given(this.#numbers, name, shape, dtype), options));
    }
    if (!fill) return this.#keep(createTensor(this.#gpu, name, shape, options));
    return this.#keep(
      fromHost(this.#gpu, name, shape, Float32Array.from({ length: size }, (_, i) => fill(i)), options),
    );
  }

  #keep(t: Tensor): Tensor {
    return this.#owned.adopt(t, () => freeTensor(this.#gpu, t));
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
