/** One step on in incremental decoding, without the host. */
import { advanceQueriesKernel, advanceRowsKernel } from "../kernels/decode.ts";
import { storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

/** The state of rows that decode one token a step; all u32. */
export interface DecodeState {
  /** [R]: the token chosen for the next position. */
  next: Tensor;
  /** [R]: the position of the first new token. */
  start: Tensor;
  ids: Tensor;
  positions: Tensor;
  slots: Tensor;
  /** [R, capacity]: the new tokens. */
  history: Tensor;
}

/** Feeds `next` to its rows: ids, positions, slots and history move on by one, up to the context's end. */
export function advanceRows(ctx: Ctx, state: DecodeState, maxPositions: number): void {
  const [rows, capacity] = state.history.shape;
  const bind = Object.fromEntries(Object.entries(state).map(([name, t]) => [name, storageOf(t)]));
  const params = { rows, capacity, maxPositions };
  ctx.r.dispatch(advanceRowsKernel, { bind, params, grid: [Math.ceil(rows / 64), 1, 1] });
}

/** What the rows see grows by their newest token, within the window if there is one. */
export function advanceQueries(ctx: Ctx, queries: Tensor, window?: number): void {
  const rows = queries.shape[0];
  ctx.r.dispatch(advanceQueriesKernel, {
    bind: { queries: storageOf(queries) },
    params: { rows, window: window ?? 0 },
    grid: [Math.ceil(rows / 64), 1, 1],
  });
}
