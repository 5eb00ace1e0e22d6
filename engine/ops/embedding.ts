/** Token and position embeddings. */
import { GpuError } from "../gpu/errors.ts";
import type { Gpu } from "../gpu/device.ts";
import { embedForward, embedToTable } from "../kernels/embedding.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { fromHost } from "../tensor/transfer.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { fill } from "./elementwise.ts";

/** Which rows mention which id, on the host: rows of `tokens[k]` are `rows[offsets[k] … offsets[k+1])`. */
export interface HostOccurrences {
  offsets: Uint32Array;
  tokens: Uint32Array;
  rows: Uint32Array;
}

/** The same on the device: offsets [R+1], tokens [R], rows [R], all u32. */
export interface Occurrences {
  offsets: Tensor;
  tokens: Tensor;
  rows: Tensor;
}

/**
 * Groups the rows of a batch by id, in ascending order of both. The arrays have the sizes R+1, R, R whatever
 * the ids are, padded by empty groups, so that a recorded plan can be fed with another batch of R rows.
 */
export function occurrences(ids: ArrayLike<number>): HostOccurrences {
  const count = ids.length;
  const rows = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => ids[a] - ids[b] || a - b);
  const offsets = new Uint32Array(count + 1).fill(count);
  const tokens = new Uint32Array(count);
  let groups = 0;
  rows.forEach((row, i) => {
    if (i > 0 && ids[rows[i - 1]] === ids[row]) return;
    offsets[groups] = i;
    tokens[groups++] = ids[row];
  });
  return { offsets, tokens, rows };
}

/** Uploads {@link occurrences}; the caller frees the three tensors. */
export function uploadOccurrences(gpu: Gpu, label: string, ids: ArrayLike<number>): Occurrences {
  const { offsets, tokens, rows } = occurrences(ids);
  return {
    offsets: fromHost(gpu, `${label} offsets`, [offsets.length], offsets),
    tokens: fromHost(gpu, `${label} tokens`, [tokens.length], tokens),
    rows: fromHost(gpu, `${label} rows`, [rows.length], rows),
  };
}

/** Options of {@link embed}. */
export interface EmbedOptions {
  /** Position of each row, u32 [R], with `positionTable` [P, D]. */
  positions?: Tensor;
  /** Learned absolute positions, added; any dtype. */
  positionTable?: Tensor;
  /** Of `ids`: needed when the table wants a gradient. */
  occurrences?: Occurrences;
  /** Of `positions`: needed when the position table wants a gradient. */
  positionOccurrences?: Occurrences;
}

/**
 * Rows of a table by id: ids u32 [R], table [V, D] of any dtype, possibly in row shards → f32 [R, D].
 * Gradients, f32 [V, D], to the tables that want one; their buffers may be sharded in any way. An id
 * outside the table leaves its row undefined. Nothing kept for backward but the occurrences.
 * @throws {GpuError} when the tables differ in width, or a gradient is wanted without occurrences
 */
export function embed(ctx: Ctx, ids: Tensor, table: Tensor, options: EmbedOptions = {}): Tensor {
  const { positions, positionTable } = options;
  const { cols: width } = matrixOf(table);
  if (positionTable && matrixOf(positionTable).cols !== width) {
    throw new GpuError(`Cannot add ${describe(positionTable)} to rows of ${describe(table)}`);
  }
  if (!positions !== !positionTable) {
    throw new GpuError("Positions and their table go together: one is missing");
  }
  const y = temp(ctx, `rows of ${table.label}`, [ids.shape[0], width]);
  addEmbedding(ctx, ids, table, y, false);
  if (positions && positionTable) addEmbedding(ctx, positions, positionTable, y, true);
  if (ctx.tape?.needs(table, positionTable)) {
    const tape = ctx.tape;
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      if (tape.needs(table)) toTable(ctx, dy, table, options.occurrences);
      if (positionTable && tape.needs(positionTable)) {
        toTable(ctx, dy, positionTable, options.positionOccurrences);
      }
    });
  }
  return y;
}

function addEmbedding(ctx: Ctx, ids: Tensor, table: Tensor, y: Tensor, ACC: boolean): void {
  const n = sizeOf(y.shape);
  for (const { storage, row, rows } of table.shards) {
    ctx.r.dispatch(embedForward, {
      variant: { dtype: table.dtype, ACC },
      bind: { ids: storageOf(ids), table: storage, y: storageOf(y) },
      params: { n, width: matrixOf(table).cols, first: row, count: rows },
      grid: elementGrid(n),
    });
  }
}

function toTable(ctx: Ctx, dy: Tensor, table: Tensor, mentions: Occurrences | undefined): void {
  if (!mentions) {
    throw new GpuError(
      `Cannot compute the gradient of ${describe(table)}: which rows mention which id is not given`,
      "Pass uploadOccurrences(…) to embed",
    );
  }
  const { grad, accumulate } = gradTarget(ctx, table);
  if (!accumulate) fill(ctx, grad, 0);
  const n = sizeOf(dy.shape);
  for (const { storage, row, rows } of grad.shards) {
    ctx.r.dispatch(embedToTable, {
      bind: {
        offsets: storageOf(mentions.offsets),
        tokens: storageOf(mentions.tokens),
        rows: storageOf(mentions.rows),
        dy: storageOf(dy),
        dtable: storage,
      },
      params: { n, width: matrixOf(table).cols, first: row, count: rows },
      grid: elementGrid(n),
    });
  }
}
