/**
 * MEND's network (Mitchell et al. 2022, section 3.2 and appendix C; memory-and-meta guide section 2.2). For the maps of
 * one shape, rows (u, δ) become (ũ, δ̃) by the blocks of blocks.ts, and
 *
 *   ΔW = −η Σ δ̃ ũᵀ.
 *
 * The sign is the paper's; the released code adds, which its author calls a mistake (mend issue 13).
 */
import type { Model } from "../../engine/models/model.ts";
import { gainRows } from "../../engine/ops/residual_relu.ts";
import { blockNetwork, normals } from "./blocks.ts";
import { shapeGroups } from "./maps.ts";
import { type Hypernetwork, type Numbers, TensorStore } from "./network.ts";

/** What makes a MEND network. */
export interface MendShape {
  /** The edited maps, in the model's order. */
  roles: readonly string[];
  /** Rank of the blocks at most; never above the width of a pair (u, δ). */
  rank: number;
  /** Where every η starts. */
  editLr: number;
  /** Learning rate of η over that of the blocks. */
  editLrRate?: number;
  /** Of C. */
  seed?: number;
  /** −1 descends, as the paper has it; +1 is what the released code does. */
  sign?: -1 | 1;
  /** Standardised rows at most, either way. */
  limit?: number;
}

/** A network with new numbers, or with given ones. */
export function mendNetwork(model: Model, shape: MendShape, numbers?: Numbers): Hypernetwork {
  const { roles, rank, editLr, editLrRate = 1, seed = 0, sign = -1, limit = 1e3 } = shape;
  const store = new TensorStore(model.gpu, numbers);
  const normal = normals(seed);
  const groups = shapeGroups(model, roles).map((group) =>
    blockNetwork(store, group, { rank, limit }, normal)
  );
  const lrs = store.parameter("edit_lrs", [roles.length], () => editLr, editLrRate);
  return {
    roles,
    parameters: store.parameters,
    buffers: store.buffers,
    factors(ctx, { gradients, learn, owned }) {
      const rows = groups.flatMap((group) => group(ctx, (role) => gradients.get(role)!, { learn, owned }));
      return new Map(rows.map(({ role, keys, delta, keep }) => {
        const values = gainRows(ctx, delta, lrs, keep, { at: roles.indexOf(role), alpha: sign });
        return [role, { keys, values, groups: gradients.get(role)!.groups }];
      }));
    },
    [Symbol.dispose]: () => store[Symbol.dispose](),
  };
}
