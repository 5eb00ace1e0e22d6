/**
 * What linear maps are given and what the loss says of what they give: inputs H and gradients of outputs G at tokens
 * of prompts with their targets, from one forward and backward pass. Their products sum to the gradient of a map,
 * ΣGᵀH, so they are that gradient before it loses the tokens (Mitchell et al. 2022, "Fast model editing at scale",
 * section 3.1); UltraEdit works on them as they are.
 */
import { GpuError } from "../engine/gpu/errors.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import type { Beside } from "../engine/models/parts.ts";
import { packRows } from "../engine/models/rows.ts";
import { type Ctx, Tape } from "../engine/ops/context.ts";
import { copy } from "../engine/ops/elementwise.ts";
import { capture, captureGrad, gatherRows } from "../engine/ops/rows.ts";
import { vocabLoss } from "../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";
import { withParts } from "./beside/map_rows.ts";
import type { Example } from "./finetune/train.ts";

/** One map's numbers, row-major, a row a token. */
export interface MapGradients {
  /** [T, in] */
  inputs: Float32Array;
  /** [T, out] */
  gradients: Float32Array;
}

/** Which tokens: those that predict the target's, or all. */
export type TokenChoice = "ans" | "mask";

/**
 * The loss is the mean of −log p over all target tokens of all examples. Waits once.
 * @param roles linear maps, for example `layer.3.mlp.down`
 * @returns by role, tokens of one example after another; and each example's mean loss
 * @throws {GpuError} when a loss is not finite, naming the example
 */
export async function mapGradients(
  model: Model,
  examples: readonly Example[],
  roles: readonly string[],
  tokens: TokenChoice,
): Promise<{ maps: Map<string, MapGradients>; losses: number[] }> {
  const { gpu, dims } = model;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const sequences = examples.map(({ prompt, target }) => ({
    ids: [...prompt, ...target.slice(0, -1)],
    prompt: prompt.length,
  }));
  const rows = owned.use(packRows(gpu, sequences, { windows: dims.windows }));
  const answers = examples.flatMap(({ prompt, target }, i) =>
    target.map((id, t) => ({ id, row: rows.rowOf(i, prompt.length - 1 + t) }))
  );
  const lossRows = own(fromHost(gpu, "loss rows", [answers.length], Uint32Array.from(answers, (a) => a.row)));
  const chosen = tokens === "ans" ? lossRows : undefined;
  const count = chosen ? answers.length : rows.count;

  const tape = new Tape();
  const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
  const kept = roles.map((role) => {
    const map = weight(model, role);
    return {
      role,
      inputs: own(createTensor(gpu, `inputs of ${role}`, [count, map.in])),
      all: own(createTensor(gpu, `gradients of ${role}`, [rows.count, map.out])),
      gradients: own(createTensor(gpu, `chosen gradients of ${role}`, [count, map.out])),
    };
  });
  const at = new Map<string, Beside>(kept.map(({ role, inputs, all }) => [role, (ctx, { x, y }) => {
    capture(ctx, x, chosen, inputs);
    tape.require(y);
    captureGrad(ctx, y, all);
    return y;
  }]));
  const watched = withParts(model, [...model.parts, {
    at,
    whole: [],
    tensors: new Map(),
    [Symbol.dispose]() {},
  }]);
  const h = gatherRows(ctx, finalNorm(ctx, watched, forward(ctx, watched, rows)), lossRows);
  const share = 1 / answers.length;
  const loss = vocabLoss(ctx, h, weight(model, "head"), {
    targets: own(fromHost(gpu, "targets", [answers.length], Uint32Array.from(answers, (a) => a.id))),
    weights: own(fromHost(gpu, "weights", [answers.length], new Float32Array(answers.length).fill(share))),
  });
  const losses = own(createTensor(gpu, "losses", [answers.length]));
  copy(ctx, loss, losses);
  tape.backward();
  for (const { all, gradients } of kept) {
    capture(ctx, chosen ? gatherRows(ctx, all, chosen) : all, undefined, gradients);
  }
  using plan = ctx.r.finish("inputs and gradients of maps");
  plan.run();
  const [l, ...values] = await readTensors(
    gpu,
    losses,
    ...kept.flatMap(({ inputs, gradients }) => [inputs, gradients]),
  ) as Float32Array[];
  let first = 0;
  const means = examples.map(({ target }, i) => {
    const mean = l.subarray(first, first += target.length).reduce(
      (sum, v) => sum + v / share / target.length,
      0,
    );
    if (!Number.isFinite(mean)) throw new GpuError(`The loss of edit ${i} is not finite`);
    return mean;
  });
  const maps = new Map(
    kept.map(({ role }, i) => [role, { inputs: values[2 * i], gradients: values[2 * i + 1] }]),
  );
  return { maps, losses: means };
}
