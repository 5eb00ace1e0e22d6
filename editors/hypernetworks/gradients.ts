/**
 * The raw material of hyper-networks: at each edited map the inputs u and the gradients δ of the edit's loss to its
 * outputs, row by row, so that ∂L/∂W = Σ δ uᵀ (Mitchell et al. 2022, section 3.1; memory-and-meta guide section
 * 2.2, steps 1 and 2). The base model alone decides them: they are constants to whatever is trained. Below the
 * lowest edited map nothing is differentiated.
 */
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import type { Applied, Part } from "../../engine/models/parts.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { captureGrad } from "../../engine/ops/rows.ts";
import { vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { matrixOf, type Tensor } from "../../engine/tensor/tensor.ts";
import type { Packed } from "./texts.ts";

/** The rows of one map. */
export interface MapGradients {
  /** [rows, in] */
  u: Tensor;
  /** [rows, out] */
  delta: Tensor;
  /** u32 [rows]: the edited model that each row belongs to. */
  groups: Tensor;
  /** The same on the host. */
  groupList: readonly number[];
  /** u32 [scored rows]: which of the rows are scored, and the edited model of each; absent where all are. */
  scored?: { index: Tensor; groups: Tensor };
}

/** By role. */
export type Gradients = ReadonlyMap<string, MapGradients>;

/**
 * Records a forward and backward pass of the edits.
 * @param edits packed by `answerOf`
 * @param want of each scored row the token and the weight of its loss
 * @param input the residual stream entering layer `from`, the lowest edited one
 */
export function collectGradients(
  { gpu, r }: Pick<Ctx, "gpu" | "r">,
  model: Model,
  roles: readonly string[],
  edits: Packed,
  want: { targets: Tensor; weights: Tensor },
  { from, input }: { from: number; input?: Tensor },
): { gradients: Gradients; losses: Tensor } {
  const tape = new Tape();
  const ctx: Ctx = { gpu, r, tape };
  const gradients = new Map<string, MapGradients>();
  const watch = (role: string) => (ctx: Ctx, { x, y }: Applied) => {
    const delta = temp(ctx, `gradient of ${role}`, y.shape);
    if (!tape.needs(y)) tape.require(y);
    captureGrad(ctx, y, delta);
    const groups = groupsOf(edits, x);
    const all = groups === edits.scoredGroups;
    const scored = all ? undefined : { index: edits.select.index, groups: edits.scoredGroups };
    const { groupLists } = edits;
    const groupList = all ? groupLists.scored : groupLists.rows;
    gradients.set(role, { u: x, delta, groups, groupList, scored });
    return y;
  };
  const part = partOf(new Map(roles.map((role) => [role, watch(role)])));
  const watched = withPart(model, part);
  const h = forward(ctx, watched, edits.rows, { from, input, select: edits.select });
  const losses = vocabLoss(ctx, finalNorm(ctx, watched, h), weight(model, "head"), want);
  tape.backward();
  return { gradients, losses };
}

/** The groups of the rows that a map sees: in the last block only the scored ones may have come so far. */
export function groupsOf({ select, groups, scoredGroups }: Packed, x: Tensor): Tensor {
  return matrixOf(x).rows === select.count ? scoredGroups : groups;
}

/** Something beside the weights for the time of a plan. */
export function partOf(at: Part["at"]): Part {
  return { at, whole: [], tensors: new Map(), [Symbol.dispose]() {} };
}

/** The model with one more part, nearest to the weights. */
export function withPart(model: Model, part: Part): Model {
  return Object.create(model, { parts: { value: [part, ...model.parts] } });
}
