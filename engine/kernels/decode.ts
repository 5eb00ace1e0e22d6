/** Bookkeeping of incremental decoding. */
import rowsSource from "../../shaders/decode/advance_rows.wgsl" with { type: "text" };
import queriesSource from "../../shaders/decode/advance_queries.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

export const advanceRowsKernel = defineKernel({
  name: "advance_rows",
  source: rowsSource,
  bindings: {
    next: "read u32",
    start: "read u32",
    ids: "update u32",
    positions: "update u32",
    slots: "update u32",
    history: "update u32",
  },
  params: { rows: "u32", capacity: "u32", maxPositions: "u32" },
});

export const advanceQueriesKernel = defineKernel({
  name: "advance_queries",
  source: queriesSource,
  bindings: { queries: "update u32" },
  params: { rows: "u32", window: "u32" },
});
