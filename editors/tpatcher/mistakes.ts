/** What T-Patcher reads before it trains: the layer's inputs, the stream behind it, and which tokens are wrong. */
import type { Activation } from "../../engine/ops/activation.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import type { Part } from "../../engine/models/parts.ts";
import { slotsPart } from "../../engine/models/additions/slots.ts";
import { packRows } from "../../engine/models/rows.ts";
import { capture } from "../../engine/ops/rows.ts";
import { vocabScores } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import { mapRows, withParts } from "../beside/map_rows.ts";
import type { Example } from "../finetune/train.ts";
import type { Patches } from "./patches.ts";

/** What an example looks like to the layer. */
export interface Read {
  /** [width] each: what the MLP reads at all tokens of prompt and target but the target's last. */
  inputs: Float32Array[];
  /** [width] each, the last of these: what it reads at the tokens that predict the target's. */
  queries: Float32Array[];
  /** [width] each: the stream behind the layer there. */
  streams: Float32Array[];
  /** Tokens of the target that are not the likeliest, by place. */
  mistakes: number[];
  /** Mean −log p of the target's tokens. */
  nll: number;
}

/** What an MLP reads at all tokens of texts, [width] each. */
export async function readQueries(model: Model, layer: number, texts: readonly (readonly number[])[]) {
  const { inputs } = await mapRows(
    model,
    `layer.${layer}.mlp.up`,
    texts.map((ids) => ({ ids, positions: [...ids.keys()] })),
  );
  return inputs;
}

/**
 * Reads an example; waits once.
 * @param more patches beside those that lie on the model
 */
export async function readMistakes(
  model: Model,
  layer: number,
  { prompt, target }: Example,
  more: { activation: Activation; patches: readonly Patches[] },
): Promise<Read> {
  const { gpu, dims: { width, windows } } = model;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const f32 = (label: string, shape: number[], values: Float32Array) =>
    own(fromHost(gpu, label, shape, values));
  const n = target.length;
  const ids = [...prompt, ...target.slice(0, -1)];
  using rows = packRows(gpu, [{ ids, prompt: prompt.length }], { windows });
  const at = own(fromHost(gpu, "rows", [n], Uint32Array.from(target, (_, t) => prompt.length - 1 + t)));
  const all = own(fromHost(gpu, "all rows", [ids.length], Uint32Array.from(ids.keys())));
  const order = own(fromHost(gpu, "order", [n], Uint32Array.from(target.keys())));
  const wanted = own(fromHost(gpu, "target", [n], Uint32Array.from(target)));
  const kept = [
    own(createTensor(gpu, "inputs", [ids.length, width])),
    own(createTensor(gpu, "streams", [n, width])),
    own(createTensor(gpu, "log-probabilities", [n])),
    own(createTensor(gpu, "likeliest tokens", [n], { dtype: "u32" })),
  ];
  const [inputs, streams, logProbs, best] = kept;
  const patched = more.patches.map(({ keys, bias, values }) =>
    slotsPart(layer, {
      keys: f32("keys", [bias.length, width], keys),
      bias: f32("bias", [bias.length], bias),
      values: f32("values", [bias.length, width], values),
    }, more.activation)
  );
  const probe: Part = {
    at: new Map([[`layer.${layer}.mlp.up`, (ctx, { x, y }) => (capture(ctx, x, all, inputs), y)]]),
    whole: [layer],
    tensors: new Map(),
    [Symbol.dispose]() {},
  };
  const ctx = { gpu, r: gpu.recorder() };
  const h = forward(ctx, withParts(model, [probe, ...model.parts, ...patched]), rows, { to: layer + 1 });
  capture(ctx, h, at, streams);
  const final = finalNorm(ctx, model, forward(ctx, model, rows, { from: layer + 1, input: h }));
  const rest = own(createTensor(gpu, "loss rows", [n, width]));
  capture(ctx, final, at, rest);
  vocabScores(ctx, rest, weight(model, "head"), { rows: order, targets: wanted }, { logProbs, best });
  using plan = ctx.r.finish("mistakes");
  plan.run();
  const [x, s, p, tokens] = await readTensors(gpu, ...kept);
  const split = (values: Float32Array) =>
    Array.from({ length: values.length / width }, (_, i) => values.slice(i * width, (i + 1) * width));
  const read = split(x as Float32Array);
  return {
    inputs: read,
    queries: read.slice(prompt.length - 1),
    streams: split(s as Float32Array),
    mistakes: target.flatMap((id, t) => tokens[t] === id ? [] : [t]),
    nll: -(p as Float32Array).reduce((sum, x) => sum + x, 0) / n,
  };
}
