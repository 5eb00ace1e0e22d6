/**
 * Look-ups: distances of rows to the keys of a table, the nearest key, and rows that take what it stands for; how
 * far a map's output moves in a side memory, and the memory that moves it most.
 */
import activatedDistanceSource from "../../shaders/lookup/activated_distance.wgsl" with { type: "text" };
import activatedDistanceBackward from "../../shaders/lookup/activated_distance_backward.wgsl" with {
  type: "text",
};
import chooseRowsSource from "../../shaders/lookup/choose_rows.wgsl" with { type: "text" };
import chooseRowsBackward from "../../shaders/lookup/choose_rows_backward.wgsl" with { type: "text" };
import chooseTableBackward from "../../shaders/lookup/choose_table_backward.wgsl" with { type: "text" };
import firesSource from "../../shaders/lookup/fires.wgsl" with { type: "text" };
import largestAboveSource from "../../shaders/lookup/largest_above.wgsl" with { type: "text" };
import nearestMemberSource from "../../shaders/lookup/nearest_member.wgsl" with { type: "text" };
import nearestSource from "../../shaders/lookup/nearest_within.wgsl" with { type: "text" };
import ownColumnsSource from "../../shaders/lookup/own_columns.wgsl" with { type: "text" };
import rowDistance from "../../shaders/lookup/row_distance.wgsl" with { type: "text" };
import spanScoresSource from "../../shaders/lookup/span_scores.wgsl" with { type: "text" };
import spanScoresBackward from "../../shaders/lookup/span_scores_backward.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { ACTIVATIONS, actSnippets } from "./activation.ts";
import { row, ROW_WORKGROUPS } from "./reduce.ts";

/** One workgroup a pair; `rows` counts pairs, `n` keys. */
export const rowDistances = defineKernel({
  name: "row_distance",
  source: rowDistance,
  bindings: { x: "read f32", index: "read u32", keys: "read f32", d: "write f32" },
  params: { rows: "u32", width: "u32", n: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [row],
});

/** One invocation a row of d, workgroups of 64. */
export const nearestWithin = defineKernel({
  name: "nearest_within",
  source: nearestSource,
  bindings: { d: "read f32", radius: "read f32", choice: "write u32" },
  params: { count: "u32", n: "u32" },
});

const WHO = { choice: "read u32", sequence: "read u32", place: "read u32" } as const;

/** `n` counts elements; `residual` is read with RESIDUAL only. */
export const chooseRowsForward = defineKernel({
  name: "choose_rows",
  source: chooseRowsSource,
  bindings: { y: "read f32", table: "read f32", residual: "read f32", ...WHO, z: "write f32" },
  params: { n: "u32", width: "u32", which: "u32", places: "u32" },
  variants: { TABLE: [true, false], RESIDUAL: [false, true] },
  snippets: () => [firesSource],
});

export const chooseRowsToRows = defineKernel({
  name: "choose_rows_backward",
  source: chooseRowsBackward,
  bindings: { dz: "read f32", ...WHO, dx: "write f32" },
  params: { n: "u32", width: "u32", which: "u32", places: "u32" },
  variants: { TABLE: [true, false], FIRED: [false, true], ACC: [false, true] },
  snippets: () => [firesSource],
});

/** `n` counts elements of the table. */
export const chooseRowsToTable = defineKernel({
  name: "choose_table_backward",
  source: chooseTableBackward,
  bindings: { dz: "read f32", ...WHO, dtable: "write f32" },
  params: { n: "u32", rows: "u32", width: "u32", which: "u32", places: "u32" },
  variants: { TABLE: [true], ACC: [false, true] },
  snippets: () => [firesSource],
});

/** One workgroup a row. `residual` is read with RESIDUAL only. */
export const activatedDistances = defineKernel({
  name: "activated_distance",
  source: activatedDistanceSource,
  bindings: { y: "read f32", residual: "read f32", delta: "read f32", d: "write f32" },
  params: { rows: "u32", width: "u32", n: "u32", column: "u32" },
  variants: { kind: ACTIVATIONS, RESIDUAL: [false, true], WG: ROW_WORKGROUPS },
  snippets: ({ kind }) => [row, ...actSnippets(kind)],
});

export const activatedDistancesToDelta = defineKernel({
  name: "activated_distance_backward",
  source: activatedDistanceBackward,
  bindings: {
    y: "read f32",
    residual: "read f32",
    delta: "read f32",
    d: "read f32",
    dd: "read f32",
    ddelta: "write f32",
  },
  params: { rows: "u32", width: "u32", n: "u32", column: "u32" },
  variants: { kind: ACTIVATIONS, RESIDUAL: [false, true], ACC: [false, true] },
  snippets: ({ kind }) => actSnippets(kind),
});

/** One invocation a score. */
export const spanScoresForward = defineKernel({
  name: "span_scores",
  source: spanScoresSource,
  bindings: { d: "read f32", spans: "read u32", score: "write f32" },
  params: { count: "u32", n: "u32", most: "u32" },
});

export const spanScoresToRows = defineKernel({
  name: "span_scores_backward",
  source: spanScoresBackward,
  bindings: { dscore: "read f32", spans: "read u32", sequence: "read u32", dd: "write f32" },
  params: { rows: "u32", n: "u32" },
  variants: { ACC: [false, true] },
});

/** One invocation a row of scores. */
export const largestAboveThreshold = defineKernel({
  name: "largest_above",
  source: largestAboveSource,
  bindings: { score: "read f32", threshold: "read f32", choice: "write u32" },
  params: { count: "u32", n: "u32" },
});

/** One invocation a prompt. */
export const nearestMember = defineKernel({
  name: "nearest_member",
  source: nearestMemberSource,
  bindings: {
    to_center: "read f32",
    to_key: "read f32",
    radius: "read f32",
    cluster: "read u32",
    choice: "write u32",
  },
  params: { count: "u32", n: "u32" },
});

/** `n` counts elements. */
export const ownColumnsKernel = defineKernel({
  name: "own_columns",
  source: ownColumnsSource,
  bindings: { x: "read f32", choice: "read u32", sequence: "read u32", y: "write f32" },
  params: { n: "u32", width: "u32", rank: "u32" },
  variants: { ACC: [false, true] },
});
