/**
 * Extra feed-forward slots (CaliNET, Dong et al. 2022; T-Patcher, Huang et al. 2023): n more neurons beside a
 * layer's MLP, which read what its up projection reads and add to what its down projection gives:
 *
 *   FFN(q) + Vᵀ act(K q + b)                 with `gates`: Vᵀ (act(G q) ⊙ (K q + b))
 *
 * | tensor | shape | |
 * | --- | --- | --- |
 * | `keys` | [n, width] | K |
 * | `bias` | [n] | b |
 * | `values` | [n, width] | V |
 * | `gates` | [n, width] | G, where the setting `gated` is true |
 *
 * They act at every token, each by its own activation; a slot whose activation is 0 changes nothing.
 */
import { GpuError } from "../../gpu/errors.ts";
import { type Activation, activation, gated } from "../../ops/activation.ts";
import type { Ctx } from "../../ops/context.ts";
import { linear, type Weight } from "../../ops/linear.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type Model, weight } from "../model.ts";
import type { Applied, Part } from "../parts.ts";
import { type Addition, uploadEntries } from "./addition.ts";

/** Slots on the device. */
export interface Slots {
  readonly keys: Tensor;
  readonly bias: Tensor;
  readonly values: Tensor;
  readonly gates?: Tensor;
}

/** The slots beside an MLP's down projection. @throws {GpuError} beside any other map */
export function slots(model: Model, addition: Addition): Part {
  const { role, settings } = addition;
  const layer = Number(/^layer\.(\d+)\.mlp\.down$/.exec(role)?.[1] ?? NaN);
  if (Number.isNaN(layer)) {
    throw new GpuError(`Slots stand beside an MLP's down projection, not beside ${role}`);
  }
  const { out: width } = weight(model, role);
  const shapes = { keys: [width], bias: [], values: [width], ...settings.gated ? { gates: [width] } : {} };
  const { tensors, dispose } = uploadEntries(model, addition, shapes as Record<keyof Slots, number[]>);
  const part = slotsPart(layer, tensors, settings.activation as Activation);
  return { ...part, tensors: new Map(Object.entries(tensors)), [Symbol.dispose]: dispose };
}

/** A part of given tensors; they may be trained. */
export function slotsPart(layer: number, { keys, bias, values, gates }: Slots, kind: Activation): Part {
  const [n, width] = keys.shape;
  const map = (name: string, matrix: Tensor, more: Partial<Weight> = {}): Weight => ({
    ...{
      role: `layer.${layer}.slots.${name}`,
      name,
      matrix,
      layout: "out_in",
      out: n,
      in: width,
      overlays: [],
    },
    ...more,
  });
  const key = map("keys", keys, { bias });
  const gate = gates && map("gates", gates);
  const value = map("values", values, { layout: "in_out", out: width, in: n });
  const self: object = {};
  return {
    at: new Map([
      [`layer.${layer}.mlp.up`, (ctx: Ctx, { x, y, block: { notes } }: Applied) => {
        const z = linear(ctx, x, key);
        notes.set(self, gate ? gated(ctx, linear(ctx, x, gate), z, kind) : activation(ctx, z, kind));
        return y;
      }],
      [`layer.${layer}.mlp.down`, (ctx: Ctx, { y, block: { notes } }: Applied) => {
        const active = notes.get(self);
        if (!active) throw new GpuError(`The slots of layer ${layer} did not see the input of its MLP`);
        return linear(ctx, active, value, { residual: y });
      }],
    ]),
    whole: [],
    tensors: new Map(),
    [Symbol.dispose]() {},
  };
}
