/** Look-ups: how far rows are from the keys of a table, which key is near enough, and rows that go its way. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import {
  chooseRowsForward,
  chooseRowsToRows,
  chooseRowsToTable,
  nearestWithin,
  rowDistances,
} from "../kernels/lookup.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/** What a choice is where there is none. */
export const NO_ENTRY = 0xffffffff;

/**
 * Euclidean distances of the rows x[index[s]] to all keys; x [rows, width], index u32 [S], keys [n, width] →
 * [S, n]. Outside the tape.
 * @throws {GpuError} when the widths differ
 */
export function distances(ctx: Ctx, x: Tensor, index: Tensor, keys: Tensor): Tensor {
  const { rows: n, cols: width } = matrixOf(keys);
  if (matrixOf(x).cols !== width) {
    throw new GpuError(`Cannot compare ${describe(x)} with ${describe(keys)}: their widths differ`);
  }
  const count = index.shape[0];
  const d = temp(ctx, `distances to ${keys.label}`, [count, n]);
  ctx.r.dispatch(rowDistances, {
    variant: { WG: rowWorkgroup(ctx.gpu, width) },
    bind: { x: storageOf(x), index: storageOf(index), keys: storageOf(keys), d: storageOf(d) },
    params: { rows: count * n, width, n },
    grid: foldGrid(count * n),
  });
  return d;
}

/**
 * into[s] = the nearest entry, the lowest among equals, where its distance is at most its radius, else
 * {@link NO_ENTRY}; d [S, n], radius [n], into u32 [S]. Outside the tape.
 * @throws {GpuError} when the sizes do not fit
 */
export function nearest(ctx: Ctx, d: Tensor, radius: Tensor, into: Tensor): void {
  const [count, n] = d.shape;
  if (radius.shape[0] !== n || into.shape[0] !== count || into.dtype !== "u32") {
    throw new GpuError(`Cannot choose by ${describe(d)} and ${describe(radius)} into ${describe(into)}`);
  }
  const bind = { d: storageOf(d), radius: storageOf(radius), choice: storageOf(into) };
  ctx.r.dispatch(nearestWithin, { bind, params: { count, n }, grid: [Math.ceil(count / 64), 1, 1] });
}

/** Which rows take another way. */
export interface Choice {
  /** u32 [S]: an entry, or {@link NO_ENTRY}. */
  readonly choice: Tensor;
  /** u32 [R]: each row's sequence. */
  readonly sequence: Tensor;
  /** u32 [R]: one bit that says where in its sequence a row is. */
  readonly place: Tensor;
  /** The bits of rows that may go another way. */
  readonly places: number;
  /**
   * With it the rows of sequences that chose this entry, or any where it is {@link NO_ENTRY}, and row r takes
   * table[r]; else table[choice].
   */
  readonly which?: number;
}

/**
 * z[r] = y[r], but where r's sequence has chosen: table[choice] + residual[r], or with `which` table[r]; y, z and
 * residual [R, W]. Rows that did not choose are copied bit by bit. Gradients to y, table and residual.
 * @throws {GpuError} when the sizes do not fit
 */
export function chooseRows(ctx: Ctx, y: Tensor, table: Tensor, how: Choice, residual?: Tensor): Tensor {
  const { rows, cols: width } = matrixOf(y);
  const { which, places } = how;
  const TABLE = which === undefined;
  const wide = matrixOf(table).cols === width && (TABLE || matrixOf(table).rows === rows);
  if (!wide || how.sequence.shape[0] !== rows || how.place.shape[0] !== rows) {
    throw new GpuError(`Cannot choose rows of ${describe(y)} from ${describe(table)}`);
  }
  const z = temp(ctx, `chosen ${y.label}`, y.shape);
  const who = {
    choice: storageOf(how.choice),
    sequence: storageOf(how.sequence),
    place: storageOf(how.place),
  };
  const n = rows * width;
  const params = { n, width, which: which ?? 0, places };
  ctx.r.dispatch(chooseRowsForward, {
    variant: { TABLE, RESIDUAL: residual !== undefined },
    // Without a residual y stands in for the binding.
    bind: {
      y: storageOf(y),
      table: storageOf(table),
      residual: storageOf(residual ?? y),
      ...who,
      z: storageOf(z),
    },
    params,
    grid: elementGrid(n),
  });
  const { tape } = ctx;
  if (!tape?.needs(y, table, residual)) return z;
  const toRows = (dz: Tensor, t: Tensor, FIRED: boolean) => {
    if (!tape.needs(t)) return;
    const { grad, accumulate: ACC } = gradTarget(ctx, t);
    ctx.r.dispatch(chooseRowsToRows, {
      variant: { TABLE, FIRED, ACC },
      bind: { dz: storageOf(dz), ...who, dx: storageOf(grad) },
      params,
      grid: elementGrid(n),
    });
  };
  tape.push(z, () => {
    const dz = tape.grad(z);
    if (!dz) return;
    if (!TABLE) toRows(dz, table, true);
    else if (tape.needs(table)) {
      const { grad, accumulate: ACC } = gradTarget(ctx, table);
      const elements = sizeOf(table.shape);
      ctx.r.dispatch(chooseRowsToTable, {
        variant: { ACC },
        bind: { dz: storageOf(dz), ...who, dtable: storageOf(grad) },
        params: { ...params, n: elements, rows },
        grid: foldGrid(Math.ceil(elements / 64)),
      });
    }
    if (residual) toRows(dz, residual, true);
    toRows(dz, y, false);
  });
  return z;
}
