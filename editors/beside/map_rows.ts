/** What goes into a linear map and what comes out of it, at chosen tokens: keys and values of the methods here. */
import { forward, type Model, weight } from "../../engine/models/model.ts";
import type { Part } from "../../engine/models/parts.ts";
import { packRows } from "../../engine/models/rows.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { capture } from "../../engine/ops/rows.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";

/** A text and the positions of it that are wanted. */
export interface Looked {
  ids: readonly number[];
  positions: readonly number[];
}

/** The rows of a map, in the order of the positions, text after text. */
export interface MapRows {
  /** [in] each */
  inputs: Float32Array[];
  /** [out] each, without the residual stream, edits of the map included. */
  outputs: Float32Array[];
}

/** Texts a batch: few enough for any device, enough to keep it busy. */
const TOGETHER = 64;

/** Inputs and outputs of the map `role` at the wanted positions, as the model is now. Waits once a batch. */
export async function mapRows(model: Model, role: string, texts: readonly Looked[]): Promise<MapRows> {
  const out: MapRows = { inputs: [], outputs: [] };
  for (let first = 0; first < texts.length; first += TOGETHER) {
    const some = await readBatch(model, role, texts.slice(first, first + TOGETHER));
    out.inputs.push(...some.inputs);
    out.outputs.push(...some.outputs);
  }
  return out;
}

async function readBatch(model: Model, role: string, texts: readonly Looked[]): Promise<MapRows> {
  const { gpu, dims } = model;
  const w = weight(model, role);
  const layer = Number(role.split(".")[1]);
  using rows = packRows(gpu, texts.map(({ ids }) => ({ ids })), { windows: dims.windows });
  const wanted = texts.flatMap(({ positions }, i) => positions.map((position) => rows.rowOf(i, position)));
  const n = wanted.length;
  const tensors: Record<string, Tensor> = {
    index: fromHost(gpu, "wanted rows", [n], Uint32Array.from(wanted)),
    x: createTensor(gpu, `inputs of ${role}`, [n, w.in]),
    y: createTensor(gpu, `outputs of ${role}`, [n, w.out]),
    residual: createTensor(gpu, "residual", [n, w.out]),
  };
  const { index, x, y, residual } = tensors;
  try {
    let added = false;
    const probe: Part = {
      at: new Map([[role, (ctx, applied) => {
        capture(ctx, applied.x, index, x);
        capture(ctx, applied.y, index, y);
        if (applied.residual) capture(ctx, applied.residual, index, residual);
        added = applied.residual !== undefined;
        return applied.y;
      }]]),
      whole: [layer],
      tensors: new Map(),
      [Symbol.dispose]() {},
    };
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    forward(ctx, withParts(model, [probe, ...model.parts]), rows, { to: layer + 1 });
    using plan = ctx.r.finish(`rows of ${role}`);
    plan.run();
    const [xs, ys, before] = await readTensors(gpu, x, y, residual) as Float32Array[];
    if (added) ys.forEach((v, i) => ys[i] = v - before[i]);
    const split = (values: Float32Array, width: number) =>
      wanted.map((_, i) => values.slice(i * width, (i + 1) * width));
    return { inputs: split(xs, w.in), outputs: split(ys, w.out) };
  } finally {
    Object.values(tensors).forEach((t) => freeTensor(gpu, t));
  }
}

/** The model with other parts beside its weights. */
export function withParts(model: Model, parts: readonly Part[]): Model {
  return Object.create(model, { parts: { value: parts } });
}
