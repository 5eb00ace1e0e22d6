/** Tensors and other things of one piece of work, freed together. */
import type { Gpu } from "../engine/gpu/device.ts";
import { createTensor, freeTensor, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost } from "../engine/tensor/transfer.ts";

/** Dispose it to free all that it was given. */
export class Scratch implements Disposable {
  readonly #gpu: Gpu;
  readonly #stack = new DisposableStack();

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  use<T extends Disposable>(thing: T): T {
    return this.#stack.use(thing);
  }

  own(t: Tensor): Tensor {
    return this.#stack.adopt(t, (t) => freeTensor(this.#gpu, t));
  }

  u32(label: string, values: readonly number[]): Tensor {
    return this.own(fromHost(this.#gpu, label, [values.length], Uint32Array.from(values)));
  }

  f32(label: string, values: readonly number[]): Tensor {
    return this.own(fromHost(this.#gpu, label, [values.length], Float32Array.from(values)));
  }

  zeros(label: string, shape: number[], dtype: "f32" | "u32" = "f32"): Tensor {
    return this.own(createTensor(this.#gpu, label, shape, { dtype }));
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}
