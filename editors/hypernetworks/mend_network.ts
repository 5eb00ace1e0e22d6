/**
 * MEND's network (Mitchell et al. 2022, section 3.2 and appendix C; memory-and-meta guide section 2.2). For the maps of
 * one shape, rows (u, δ) are standardised and go through two residual blocks of low rank,
 *
 *   h ← h + max(0, (A(C h) + c) ⊙ s_q + t_q)
 *
 * with scale and shift of the map's own; what comes out is split again into ũ and δ̃, and
 *
 *   ΔW = −η Σ δ̃ ũᵀ.
 *
 * The sign is the paper's; the released code adds, which its author calls a mistake (mend issue 13).
 */
import type { Model } from "../../engine/models/model.ts";
import { seededRandom } from "../../engine/models/sample.ts";
import { splitBlocks } from "../../engine/ops/columns.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import type { RowFactors } from "../../engine/ops/factored.ts";
import { linear } from "../../engine/ops/linear.ts";
import { countRows, keptRows, mergeMoments, type Moments, standardise } from "../../engine/ops/moments.ts";
import { gainRows, residualRelu } from "../../engine/ops/residual_relu.ts";
import { matrixOf, type Tensor } from "../../engine/tensor/tensor.ts";
import { type ShapeGroup, shapeGroups } from "./maps.ts";
import { type Asked, type Hypernetwork, type Numbers, TensorStore } from "./network.ts";
import { u32 } from "./texts.ts";

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
}

/** The two blocks of each network. */
const BLOCKS = [0, 1];

/** A network with new numbers, or with given ones. */
export function mendNetwork(model: Model, shape: MendShape, numbers?: Numbers): Hypernetwork {
  const { roles, rank, editLr, editLrRate = 1, seed = 0, sign = -1 } = shape;
  const store = new TensorStore(model.gpu, numbers);
  const random = seededRandom(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const groups = shapeGroups(model, roles).map((group) => groupNetwork(store, group, rank, normal));
  const lrs = store.parameter("edit_lrs", [roles.length], () => editLr, editLrRate);
  return {
    roles,
    parameters: store.parameters,
    buffers: store.buffers,
    factors: (ctx, asked) =>
      new Map(groups.flatMap((group) => group(ctx, asked, { lrs, at: (role) => roles.indexOf(role), sign }))),
    [Symbol.dispose]: () => store[Symbol.dispose](),
  };
}

/** How the outputs become a change. */
interface Step {
  lrs: Tensor;
  at: (role: string) => number;
  sign: number;
}

function groupNetwork(store: TensorStore, group: ShapeGroup, rank: number, normal: () => number) {
  const { in: inner, out, roles } = group;
  const name = `${inner}x${out}`, width = inner + out, r = Math.min(rank, width), modes = roles.length;
  const count = store.buffer(`${name}.count`, [1], "u32");
  const moments = (of: string, width: number): Moments => ({
    mean: store.buffer(`${name}.${of}.mean`, [width]),
    scatter: store.buffer(`${name}.${of}.scatter`, [width]),
  });
  const ofU = moments("u", inner), ofDelta = moments("delta", out);
  const blocks = BLOCKS.map((i) => ({
    A: store.parameter(`${name}.${i}.A`, [width, r]),
    C: store.parameter(`${name}.${i}.C`, [r, width], normal),
    bias: store.parameter(`${name}.${i}.bias`, [width]),
    scale: store.parameter(`${name}.${i}.scale`, [modes, width], () => 1),
    shift: store.parameter(`${name}.${i}.shift`, [modes, width]),
  }));
  const map = (role: string, matrix: Tensor, bias?: Tensor) => ({
    ...{ role, name: role, matrix, bias, layout: "out_in" as const, overlays: [] },
    ...{ out: matrix.shape[0], in: matrix.shape[1] },
  });

  return (ctx: Ctx, { gradients, learn, owned }: Asked, { lrs, at, sign }: Step): [string, RowFactors][] => {
    const constant: Ctx = { gpu: ctx.gpu, r: ctx.r };
    const rows = roles.map((role) => matrixOf(gradients.get(role)!.u).rows);
    const starts = rows.map((_, i) => rows.slice(0, i).reduce((a, b) => a + b, 0));
    const total = starts.at(-1)! + rows.at(-1)!;
    let h = temp(ctx, `pairs of ${name}`, [total, width]);
    const keeps = roles.map((role, i) => {
      const { u, delta } = gradients.get(role)!;
      const keep = keptRows(constant, u, delta);
      if (learn) {
        mergeMoments(constant, u, keep, count, ofU);
        mergeMoments(constant, delta, keep, count, ofDelta);
        countRows(constant, keep, count);
      }
      standardise(constant, u, keep, count, ofU, { h, row: starts[i], first: 0 });
      standardise(constant, delta, keep, count, ofDelta, { h, row: starts[i], first: inner });
      return keep;
    });
    const first = u32(ctx.gpu, owned, "modes", [...starts, total]);
    for (const { A, C, bias, scale, shift } of blocks) {
      const p = linear(ctx, linear(ctx, h, map(`${name}.C`, C)), map(`${name}.A`, A, bias));
      h = residualRelu(ctx, h, p, { scale, shift, first });
    }
    return splitBlocks(ctx, h, rows, [inner, out]).map(([keys, delta], i) => {
      const values = gainRows(ctx, delta, lrs, keeps[i], { at: at(roles[i]), alpha: sign });
      return [roles[i], { keys, values, groups: gradients.get(roles[i])!.groups }];
    });
  };
}
