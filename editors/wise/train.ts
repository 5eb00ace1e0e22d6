/**
 * Training of a side memory on one edit (WISE, section 2.3; guide section 11.2): plain gradient descent on the
 * elements of a mask, on
 *
 *   L = L_ft + [D_o − D_e + γ]₊ + [D_o − α]₊ + [β − D_e]₊
 *
 * L_ft is −log p of the target after the prompt in several contexts, D how far the memory moves the map's output,
 * D_e in these texts and D_o in an unrelated one. What lies below the map is computed once (through_layer.ts); a step is
 * recorded once and replayed, and the host waits once an edit.
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import { changeOf } from "../../engine/models/additions/side_memory.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { packRows, selectRows } from "../../engine/models/rows.ts";
import type { Activation } from "../../engine/ops/activation.ts";
import { type Ctx, Tape } from "../../engine/ops/context.ts";
import { add, fill } from "../../engine/ops/elementwise.ts";
import { linear } from "../../engine/ops/linear.ts";
import { margins, type MarginState } from "../../engine/ops/margins.ts";
import { maskedStep } from "../../engine/ops/optim.ts";
import { gatherRows } from "../../engine/ops/rows.ts";
import { activatedDistance, spanScores } from "../../engine/ops/side_memory.ts";
import { vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, storageOf, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import type { Example } from "../finetune/train.ts";
import type { WiseHparams } from "../wise.ts";
import { throughLayer } from "./through_layer.ts";

/** The authors' early stop: the last loss at most 0.02, and within 1e-4 of the one before. */
const STOP = { still: 1e-4, low: 0.02 };

/** What an edit trains. */
export interface MemoryTraining {
  /** Beside which map. */
  role: string;
  /** Δ as the matrix is stored; replaced by the trained one. */
  delta: Float32Array;
  /** The edit: its prompt in several contexts, with the target. */
  texts: readonly Example[];
  /** Token ids of a text that it has nothing to do with. */
  other: readonly number[];
  /** Seed of the mask. */
  seed: number;
  activation: Activation;
}

/** A trained memory. */
export interface TrainedMemory {
  delta: Float32Array;
  /** Mean D of the edit's texts, as the last step saw it. */
  scope: number;
  /** Each step's L_ft and margin loss, before its update. */
  losses: { nll: number; margin: number }[];
}

/**
 * Trains a side memory beside a map of the model, which is left as it is.
 * @throws {GpuError} when the loss is not finite
 */
export async function trainMemory(
  model: Model,
  { role, delta: start, texts, other, seed, activation }: MemoryTraining,
  hparams: WiseHparams,
): Promise<TrainedMemory> {
  const { gpu, dims } = model;
  const layer = Number(role.split(".")[1]);
  const w = weight(model, role);
  const { n_iter, edit_lr: lr, weight_decay: decay, norm_constraint, act_margin, mask_ratio } = hparams;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const u32 = (label: string, values: number[]) =>
    own(fromHost(gpu, label, [values.length], Uint32Array.from(values)));

  // Whole texts, the target's last token too: the distances are those of all their tokens.
  const packing = { windows: dims.windows };
  const whole = texts.map(({ prompt, target }) => ({ ids: [...prompt, ...target], prompt: prompt.length }));
  const rows = owned.use(packRows(gpu, [...whole, { ids: other }], packing));
  // Above the map's layer the loss alone counts: no unrelated text, and no last token of a target.
  const read = whole.map(({ ids, prompt }) => ({ ids: ids.slice(0, -1), prompt }));
  const above = owned.use(packRows(gpu, read, packing));
  const kept = u32("rows above", above.places.map((at) => rows.rowOf(at.sequence, at.position)));
  const of = texts.flatMap(({ prompt, target }, i) =>
    target.map((id, t) => ({
      id,
      row: above.rowOf(i, prompt.length - 1 + t),
      // The authors' mask begins one token early, so that a zero is averaged in.
      weight: 1 / (target.length + 1) / texts.length,
    }))
  );
  const select = owned.use(selectRows(gpu, above, of.map(({ row }) => row), read, packing));
  const layerWith = throughLayer(model, role, rows, own);

  const delta = own(fromHost(gpu, `side memory of ${role}`, w.matrix.shape, start));
  const gradient = own(createTensor(gpu, "d side memory", w.matrix.shape));
  const state: MarginState = {
    history: own(createTensor(gpu, "losses", [n_iter, 2])),
    progress: own(fromHost(gpu, "progress", [3], Float32Array.of(1e9, 0, 0))),
    flags: own(createTensor(gpu, "flags", [2], { dtype: "u32" })),
    done: own(createTensor(gpu, "done", [1], { dtype: "u32" })),
  };
  const spans = own(
    fromHost(
      gpu,
      "texts",
      [texts.length + 1, 4],
      Uint32Array.from(
        [...whole, { ids: other }].flatMap(({ ids }, i) => [rows.rowOf(i, 0), ids.length, 0, 0]),
      ),
    ),
  );
  const where = { spans, sequence: rows.prompts().sequence };
  const targets = u32("targets", of.map(({ id }) => id));
  const weights = own(fromHost(gpu, "loss weights", [of.length], Float32Array.from(of, (o) => o.weight)));

  const tape = new Tape();
  const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
  ctx.r.gated(storageOf(state.done), () => {
    fill(ctx, gradient, 0);
    tape.require(delta, gradient);
    let distances: Tensor | undefined;
    const left = layerWith(ctx, ({ x, y, residual }) => {
      const moved = linear(ctx, x, changeOf(w, delta));
      const d = activatedDistance(ctx, { y, residual, delta: moved, kind: activation });
      distances = spanScores(ctx, d, where);
      return add(ctx, y, moved);
    });
    const input = gatherRows(ctx, left, kept);
    const top = layer + 1 === dims.layers;
    const h = top
      ? gatherRows(ctx, input, select.index)
      : forward(ctx, model, above, { from: layer + 1, input, select });
    const terms = vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), { targets, weights });
    const [alpha, beta, gamma] = act_margin;
    margins(ctx, distances!, terms, state, { alpha, beta, gamma, ...STOP });
    ctx.r.gated(storageOf(state.done), () => {
      tape.backward();
      maskedStep(ctx, {
        ...{ param: delta, grad: gradient, base: w.matrix, lr, decay, bound: norm_constraint },
        mask: { seed, share: mask_ratio },
      });
    });
  });
  using plan = ctx.r.finish("side memory step");
  for (let step = 0; step < n_iter; step++) plan.run();
  const [trained, history, [, , scope], [steps, bad]] = await readTensors(
    gpu,
    delta,
    state.history,
    state.progress,
    state.flags,
  ) as [Float32Array, Float32Array, Float32Array, Uint32Array];
  if (bad > 0) {
    throw new GpuError(`The loss is not finite at step ${bad - 1}`, `Lower edit_lr, which is ${lr}`);
  }
  const losses = Array.from(
    { length: steps },
    (_, i) => ({ nll: history[2 * i], margin: history[2 * i + 1] }),
  );
  return { delta: trained, scope, losses };
}
