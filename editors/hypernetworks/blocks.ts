/**
 * What MEND and MALMEN have in common: rows (u, δ) of the maps of one shape are standardised by running moments and go
 * through two residual blocks of low rank, with scale and shift of the map's own (Mitchell et al. 2022, section 3.2 and
 * appendix C; Tan et al. 2024, section 3; memory-and-meta guide sections 2.2 and 4):
 *
 *   MEND     h ← h + max(0, (A(C h) + c) ⊙ s_q + t_q)
 *   MALMEN   h ← h + s_q ⊙ max(0, A(C h) + c) + t_q
 *
 * What comes out is split again into ũ and δ̃.
 */
import { seededRandom } from "../../engine/models/sample.ts";
import { splitBlocks } from "../../engine/ops/columns.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import { linear } from "../../engine/ops/linear.ts";
import { countRows, keptRows, mergeMoments, type Moments, standardise } from "../../engine/ops/moments.ts";
import { residualRelu } from "../../engine/ops/residual_relu.ts";
import { matrixOf, type Tensor } from "../../engine/tensor/tensor.ts";
import type { MapGradients } from "./gradients.ts";
import type { ShapeGroup } from "./maps.ts";
import type { TensorStore } from "./network.ts";
import { u32 } from "./texts.ts";

/** How the blocks are made. */
export interface BlockShape {
  /** Of A and C at most; never above the width of a pair. */
  rank: number;
  /** Scale and shift after the rectifier, as MALMEN has them. */
  after?: boolean;
  /** Standardised rows at most, either way; the released codes have no such bound (guide section 2.8). */
  limit: number;
}

/** Rows of one map as they come out. */
export interface Transformed {
  role: string;
  /** [rows, in] */
  keys: Tensor;
  /** [rows, out] */
  delta: Tensor;
  /** u32 [rows]: 0 for rows of nothing, which stay out of everything. */
  keep: Tensor;
}

/** The rows of a map. */
export type Rows = Pick<MapGradients, "u" | "delta">;

/** Records the way of rows, by role, through the blocks; with `learn` the moments take them in first. */
export type BlockNetwork = (
  ctx: Ctx,
  rowsOf: (role: string) => Rows,
  how: { learn: boolean; owned: DisposableStack },
) => Transformed[];

/** Normal numbers from a seed. */
export function normals(seed: number): () => number {
  const random = seededRandom(seed);
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** The two blocks of each network. */
const BLOCKS = [0, 1];

/** Makes the blocks for the maps of one shape; their tensors belong to the store. */
export function blockNetwork(
  store: TensorStore,
  { in: inner, out, roles }: ShapeGroup,
  { rank, after, limit }: BlockShape,
  normal: () => number,
): BlockNetwork {
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

  return (ctx, rowsOf, { learn, owned }) => {
    const constant: Ctx = { gpu: ctx.gpu, r: ctx.r };
    const given = roles.map(rowsOf);
    const rows = given.map(({ u }) => matrixOf(u).rows);
    const starts = rows.map((_, i) => rows.slice(0, i).reduce((a, b) => a + b, 0));
    const total = starts.at(-1)! + rows.at(-1)!;
    let h = temp(ctx, `pairs of ${name}`, [total, width]);
    const keeps = given.map(({ u, delta }, i) => {
      const keep = keptRows(constant, u, delta);
      if (learn) {
        mergeMoments(constant, u, keep, count, ofU);
        mergeMoments(constant, delta, keep, count, ofDelta);
        countRows(constant, keep, count);
      }
      standardise(constant, u, keep, count, ofU, { h, row: starts[i], first: 0 }, limit);
      standardise(constant, delta, keep, count, ofDelta, { h, row: starts[i], first: inner }, limit);
      return keep;
    });
    const first = u32(ctx.gpu, owned, "modes", [...starts, total]);
    for (const { A, C, bias, scale, shift } of blocks) {
      const p = linear(ctx, linear(ctx, h, map(`${name}.C`, C)), map(`${name}.A`, A, bias));
      h = residualRelu(ctx, h, p, { scale, shift, first }, { after });
    }
    return splitBlocks(ctx, h, rows, [inner, out]).map(([keys, delta], i) => (
      { role: roles[i], keys, delta, keep: keeps[i] }
    ));
  };
}
