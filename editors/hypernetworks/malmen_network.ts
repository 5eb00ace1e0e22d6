/**
 * MALMEN's network (Tan et al. 2024, "Massive editing for large language models via meta learning"; memory-and-meta
 * guide section 4). Rows (k, g) are taken at the tokens that predict answers only; the blocks of blocks.ts make
 * (k̃, g̃) of them, and the wanted differences of outputs are joined by one least squares a map:
 *
 *   d_j = −η (k_j · k̃_j) g̃_j        ΔWᵀ = (KᵀK + e^λ I)⁻¹ KᵀD = Kᵀ (KKᵀ + e^λ I)⁻¹ D
 *
 * so that edits do not cancel, however many there are. η and λ are learned, one each a map.
 */
import type { Model } from "../../engine/models/model.ts";
import { gainRows } from "../../engine/ops/residual_relu.ts";
import { keyedRows, ridgeSolve } from "../../engine/ops/ridge.ts";
import { gatherRows } from "../../engine/ops/rows.ts";
import { blockNetwork, normals } from "./blocks.ts";
import type { MapGradients } from "./gradients.ts";
import { shapeGroups } from "./maps.ts";
import { type Hypernetwork, type Numbers, TensorStore } from "./network.ts";

/** What makes a MALMEN network. */
export interface MalmenShape {
  /** The edited maps, in the model's order. */
  roles: readonly string[];
  /** Rank of the blocks at most. */
  rank: number;
  /** Where every η starts. */
  editLr: number;
  /** Learning rate of η and λ over that of the blocks. */
  editLrRate?: number;
  /** Of C. */
  seed?: number;
  /** Standardised rows at most, either way. */
  limit?: number;
}

/** A network with new numbers, or with given ones. */
export function malmenNetwork(model: Model, shape: MalmenShape, numbers?: Numbers): Hypernetwork {
  const { roles, rank, editLr, editLrRate = 1, seed = 0, limit = 1e3 } = shape;
  const store = new TensorStore(model.gpu, numbers);
  const normal = normals(seed);
  const blocks = { rank, limit, after: true };
  const groups = shapeGroups(model, roles).map((group) => blockNetwork(store, group, blocks, normal));
  const lrs = store.parameter("edit_lrs", [roles.length], () => editLr, editLrRate);
  const lambda = store.parameter("lambda", [roles.length], undefined, editLrRate);
  return {
    roles,
    parameters: store.parameters,
    buffers: store.buffers,
    perToken: true,
    locAtAnswer: true,
    factors(ctx, { gradients, learn, owned }) {
      const answers = new Map(roles.map((role) => [role, answersOf(ctx, gradients.get(role)!)]));
      const rows = groups.flatMap((group) => group(ctx, (role) => answers.get(role)!, { learn, owned }));
      return new Map(rows.map(({ role, keys: pseudo, delta, keep }) => {
        const { u: keys, groups } = answers.get(role)!;
        const at = roles.indexOf(role);
        const differences = gainRows(ctx, keyedRows(ctx, keys, pseudo, delta), lrs, keep, { at, alpha: -1 });
        return [role, { keys, values: ridgeSolve(ctx, keys, differences, groups, { lambda, at }), groups }];
      }));
    },
    [Symbol.dispose]: () => store[Symbol.dispose](),
  };
}

/** The rows that predict answers. In the last block they are all that there is. */
function answersOf(ctx: Parameters<Hypernetwork["factors"]>[0], { u, delta, groups, scored }: MapGradients) {
  if (!scored) return { u, delta, groups };
  const constant = { gpu: ctx.gpu, r: ctx.r };
  return {
    u: gatherRows(constant, u, scored.index),
    delta: gatherRows(constant, delta, scored.index),
    groups: scored.groups,
  };
}
