/** Rows of an embedding table by id, and the gradient of the table. */
import embed from "../../shaders/embedding/embed.wgsl" with { type: "text" };
import embedBackward from "../../shaders/embedding/embed_backward.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { loadWeight, WEIGHT_DTYPES } from "./weights.ts";

/** One dispatch a shard of the table; ids outside `[first, first + count)` are left to the others. */
export const embedForward = defineKernel({
  name: "embed",
  source: embed,
  bindings: { ids: "read u32", table: "read u32", y: "write f32" },
  params: { n: "u32", width: "u32", first: "u32", count: "u32" },
  variants: { dtype: WEIGHT_DTYPES, ACC: [false, true] },
  snippets: ({ dtype }) => [loadWeight("table", dtype)],
});

/** One dispatch a shard of the gradient, which must hold something already. */
export const embedToTable = defineKernel({
  name: "embed_backward",
  source: embedBackward,
  bindings: {
    offsets: "read u32",
    tokens: "read u32",
    rows: "read u32",
    dy: "read f32",
    dtable: "update f32",
  },
  params: { n: "u32", width: "u32", first: "u32", count: "u32" },
});
