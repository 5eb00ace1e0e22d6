/**
 * What the tests of editors share: requests of token ids for tiny models, and the target optimisation's loss and
 * gradient the long way: every layer, every row, δ added by a hook, as the authors' code does it.
 */
import type { Target, TargetOptions, TargetRequest } from "../../editors/targets.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { packRows } from "../../engine/models/rows.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import { type Ctx, Tape } from "../../engine/ops/context.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { linear } from "../../engine/ops/linear.ts";
import { addToRows, gatherRows } from "../../engine/ops/rows.ts";
import { logits, logSoftmax, vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";

/** A prompt of token ids. */
const prompt = (subjectLast: number, ...ids: number[]) => ({ text: "", ids, subjectLast });

/** Requests that differ in everything: contexts, lengths, targets; one has its subject first in the prompt. */
export const REQUESTS: TargetRequest[] = [
  {
    prompts: [
      prompt(2, 11, 40, 41, 7, 8),
      prompt(6, 60, 61, 62, 5, 40, 12, 41, 7, 8),
      prompt(2, 9, 40, 41, 7, 8),
    ],
    target: [33, 72],
    kl: prompt(1, 40, 41, 3, 4),
  },
  {
    prompts: [prompt(0, 50, 13, 14), prompt(2, 61, 5, 50, 13, 14)],
    target: [81],
    kl: prompt(0, 50, 3, 4),
  },
  { prompts: [prompt(3, 20, 21, 22, 23)], target: [64, 65, 66], kl: prompt(2, 21, 22, 23, 3, 4) },
];

/** The published settings, with fewer steps: a tiny model's δ is soon on the clamp, so it is wide. */
export const OPTIONS: TargetOptions = {
  ...{
    layer: 1,
    v_num_grad_steps: 6,
    v_lr: 0.5,
    v_weight_decay: 0.5,
    clamp_norm_factor: 40,
    kl_factor: 0.0625,
  },
};

/** Mean NLL of the target, kl_factor·KL, and the gradient of their sum to δ at this δ. */
export async function fullStep(
  model: Model,
  request: TargetRequest,
  delta: Float32Array,
  { layer, kl_factor }: TargetOptions,
): Promise<{ nll: number; kl: number; gradient: Float32Array }> {
  const { gpu, dims } = model;
  const { prompts, target, kl } = request;
  const all = [...prompts.map((p) => ({ ...p, ids: [...p.ids, ...target.slice(0, -1)] })), kl];
  using rows = packRows(gpu, all, { windows: dims.windows });
  const owned: Tensor[] = [];
  const own = (t: Tensor) => (owned.push(t), t);
  const u32 = (values: number[]) => own(fromHost(gpu, "ids", [values.length], Uint32Array.from(values)));
  const lookups = u32(all.map((p, i) => rows.rowOf(i, p.subjectLast)));
  const zeros = u32(all.map(() => 0));
  const d = own(fromHost(gpu, "delta", [1, dims.width], delta));
  const klRow = rows.rowOf(prompts.length, kl.subjectLast);

  const reference = own(createTensor(gpu, "log p0", [1, dims.vocab]));
  const before: Ctx = { gpu, r: gpu.recorder() };
  const h0 = finalNorm(before, model, forward(before, model, rows));
  logSoftmax(before, logits(before, gatherRows(before, h0, u32([klRow])), weight(model, "head")), reference);
  using first = before.r.finish("unedited");
  first.run();

  const tape = new Tape();
  const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
  tape.require(d);
  const edit: Hook = (ctx, value) => addToRows(ctx, value, lookups, zeros, d);
  const hooks = new Map<Site, Hook>([[`layer.${layer}.mlp.out`, edit]]);
  const h = finalNorm(ctx, model, forward(ctx, model, rows, { hooks }));
  const lossRows = prompts.flatMap((p, i) => target.map((_, t) => rows.rowOf(i, p.ids.length - 1 + t)));
  const n = lossRows.length;
  const loss = vocabLoss(ctx, gatherRows(ctx, h, u32([...lossRows, klRow])), weight(model, "head"), {
    targets: u32([...prompts.flatMap(() => target), 0]),
    weights: own(fromHost(gpu, "weights", [n + 1], [...Array(n).fill(1 / n), kl_factor])),
    kl: { rows: 1, reference },
  });
  const [losses, gradient] = [
    own(createTensor(gpu, "losses", [n + 1])),
    own(createTensor(gpu, "g", d.shape)),
  ];
  copy(ctx, loss, losses);
  tape.backward();
  copy(ctx, tape.grad(d)!, gradient);
  using plan = ctx.r.finish("full step");
  plan.run();
  const [l, g] = await readTensors(gpu, losses, gradient) as Float32Array[];
  owned.forEach((t) => freeTensor(gpu, t));
  return { nll: l.slice(0, n).reduce((a, b) => a + b, 0), kl: l[n], gradient: g };
}

/** W k + b through the model's own linear map and its overlays, on the device. */
export async function mapKey(model: Model, role: string, key: ArrayLike<number>): Promise<Float32Array> {
  const { gpu } = model;
  const w = weight(model, role);
  const x = fromHost(gpu, "key", [1, w.in], Float32Array.from(key));
  const kept = createTensor(gpu, "value", [1, w.out]);
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  copy(ctx, linear(ctx, x, w), kept);
  using plan = ctx.r.finish("map key");
  plan.run();
  const [value] = await readTensors(gpu, kept) as Float32Array[];
  [x, kept].forEach((t) => freeTensor(gpu, t));
  return value;
}

/** Mean of vectors in f64. */
export function meanOf(vectors: readonly Float32Array[]): Float64Array {
  return Float64Array.from(vectors[0], (_, i) => vectors.reduce((sum, v) => sum + v[i], 0) / vectors.length);
}

/** ‖δ‖ and ‖v0‖ of a target. */
export function norms({ delta, v0 }: Target): { delta: number; v0: number } {
  return { delta: Math.hypot(...delta), v0: Math.hypot(...v0) };
}
