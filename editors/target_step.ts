/**
 * One step of target optimisation as a plan (see targets.ts): loss, gradient and update of every edit that is still
 * going on. Edits that have stopped keep their places in the state and have no rows.
 */
import type { Plan } from "../engine/gpu/plan.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import { type KvCache, type Rows, type Selection, selectRows } from "../engine/models/rows.ts";
import type { Hook, Site } from "../engine/models/sites.ts";
import { type Ctx, Tape, temp } from "../engine/ops/context.ts";
import { fill, multiply } from "../engine/ops/elementwise.ts";
import { adam, advance, normPenalty, projectBall } from "../engine/ops/optim.ts";
import { addToRows, gatherRows, groupMean, scatterRows } from "../engine/ops/rows.ts";
import { stopRule, type StopState, sureRule } from "../engine/ops/stop_rule.ts";
import { vocabLoss } from "../engine/ops/vocab_loss.ts";
import { reshape, storageOf, type Tensor } from "../engine/tensor/tensor.ts";
import type { Scratch } from "./scratch.ts";
import { lossRowsOf, PARTS, type TargetItem } from "./target_items.ts";
import type { TargetOptions, TargetRequest } from "./targets.ts";

/** One optimised vector an edit, with what Adam keeps of it. */
export interface Variable {
  /** δ and Adam's moments, [E, D] each. */
  delta: Tensor;
  m: Tensor;
  v: Tensor;
  /** [E]: ‖δ‖ at most, and the factor of ‖δ‖ in the loss. */
  radius: Tensor;
  decay: Tensor;
}

/** The sequences of the edits that are still going on. */
export interface LiveItems {
  items: readonly TargetItem[];
  /** Their rows from each lookup on, over cached keys. */
  rows: Rows;
  /** The stream that enters the first layer of a step, [rows, D]. */
  stream: Tensor;
  /** log p_0 after each of their KL prompts, [edits, vocab]. */
  reference: Tensor;
}

/** What a step works with. */
export interface StepParts {
  model: Model;
  requests: readonly TargetRequest[];
  options: TargetOptions;
  /** The first layer that a step computes. */
  from: number;
  cache: KvCache;
  /** δ, and for PMET a second one at the attention's output. */
  variables: readonly Variable[];
  clock: Tensor;
  state: StopState;
  /** [E + 1, 1]: what each edit's NLL is multiplied with, and a 1 for KL rows; where there is the rule for it. */
  nll?: Tensor;
}

/** Records a step. What it uploads belongs to `scratch`, and so does the plan. */
export function recordStep(parts: StepParts, live: LiveItems, scratch: Scratch): Plan {
  const { model, requests, options, variables, clock, state, nll } = parts;
  const { gpu, dims } = model;
  const { v_lr: lr, threshold = 0.05, sure } = options;
  const edits = requests.length;
  const { items, rows, reference } = live;
  const places = lossRowsOf(requests, items, rows, options);
  const packing = { cached: true, windows: dims.windows };
  const select = scratch.use(selectRows(gpu, rows, places.map((p) => p.row), items, packing));
  const targets = scratch.u32("targets", places.map((p) => p.target));
  const fixed = scratch.f32("loss weights", places.map((p) => p.weight));
  const owners = scratch.u32("loss edits", places.map((p) => p.kl ? edits : p.edit));
  const best = sure && scratch.zeros("likeliest tokens", [places.filter((p) => !p.kl).length], "u32");
  // Row losses go to the terms [edit, part]: part 0 is the NLL, 1 the KL, 2 the weight decay.
  const group = scratch.u32("loss groups", places.map((p) => p.edit * PARTS + (p.kl ? 1 : 0)));
  const ones = scratch.f32("ones", places.map(() => 1));
  const decays = scratch.u32("decay terms", Array.from({ length: edits }, (_, e) => e * PARTS + 2));

  const tape = new Tape();
  const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
  ctx.r.gated(storageOf(state.gate), () => {
    variables.forEach(({ delta }) => tape.require(delta));
    const h = edited(ctx, parts, live, select, scratch);
    const weights = nll
      ? multiply(ctx, fixed, reshape(gatherRows(ctx, nll, owners), [places.length]))
      : fixed;
    const loss = vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), {
      targets,
      weights,
      kl: { rows: reference.shape[0], reference },
      best,
    });
    const terms = reshape(state.terms, [edits * PARTS, 1]);
    groupMean(ctx, reshape(loss, [places.length, 1]), group, ones, terms);
    const noGradient = temp(ctx, "unused gradient", [edits, dims.width]);
    fill(ctx, noGradient, 0);
    const wd = temp(ctx, "weight decay loss", [edits]);
    fill(ctx, wd, 0);
    for (const { delta, decay: coefficient } of variables) {
      normPenalty(ctx, { delta, coefficient, loss: wd, grad: noGradient });
    }
    scatterRows(ctx, reshape(wd, [edits, 1]), decays, terms);
    stopRule(ctx, state, threshold);
    if (sure && best && nll) sureRule(ctx, { best, wanted: targets, edit: owners }, state, nll, sure);
    tape.backward();
    advance(ctx, clock);
    for (const { delta, m, v, radius, decay: coefficient } of variables) {
      const grad = tape.grad(delta)!;
      normPenalty(ctx, { delta, coefficient, loss: wd, grad });
      adam(ctx, { param: delta, grad, m, v, step: clock, lr, active: state.active });
      projectBall(ctx, delta, radius, state.active);
    }
  });
  return scratch.use(ctx.r.finish("optimise targets"));
}

/** The stream at the loss rows with every δ added at its place. */
function edited(
  ctx: Ctx,
  { model, options: { layer }, from, cache, variables }: StepParts,
  { items, rows, stream }: LiveItems,
  select: Selection,
  scratch: Scratch,
): Tensor {
  const lookups = scratch.u32("lookup rows", items.map((item, i) => rows.rowOf(i, item.lookup)));
  const edits = scratch.u32("lookup edits", items.map((item) => item.edit));
  const span = { from, cache, select };
  const [{ delta }, attention] = variables;
  if (attention) {
    const adding = (d: Tensor): Hook => (ctx, value) => addToRows(ctx, value, lookups, edits, d);
    const hooks = new Map<Site, Hook>([
      [`layer.${layer}.attn.out`, adding(attention.delta)],
      [`layer.${layer}.mlp.out`, adding(delta)],
    ]);
    return forward(ctx, model, rows, { ...span, input: stream, hooks });
  }
  // What is added to the MLP's output is added to the block's.
  const input = addToRows(ctx, stream, lookups, edits, delta);
  // Above the last layer there is no block to do the selecting.
  if (from === model.dims.layers) return gatherRows(ctx, input, select.index);
  return forward(ctx, model, rows, { ...span, input });
}
