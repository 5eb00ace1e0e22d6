/**
 * Pictures of causal traces, like figures 1 to 3 of Meng et al. 2022: heat maps of tokens by layers, the subject's
 * tokens starred, and effects by layer with their intervals.
 */
import { type KindAverages, TOKEN_CLASSES, type TraceAverages } from "../../editors/tracing/average.ts";
import type { TraceKind } from "../../editors/tracing/cells.ts";
import type { FactTrace } from "../../editors/tracing/trace.ts";
import { COLOURS, INKS, type Spec } from "../report/svg.ts";

/** What a picture says beside its numbers. */
export interface Captions {
  model: string;
  window: number;
}

/** The paper's colours, ColorBrewer's from nearly white on: purple for states, green for MLPs, red for attention. */
const PURPLES = [
  "#fcfbfd",
  "#efedf5",
  "#dadaeb",
  "#bcbddc",
  "#9e9ac8",
  "#807dba",
  "#6a51a3",
  "#54278f",
  "#3f007d",
];
const GREENS = [
  "#f7fcf5",
  "#e5f5e0",
  "#c7e9c0",
  "#a1d99b",
  "#74c476",
  "#41ab5d",
  "#238b45",
  "#006d2c",
  "#00441b",
];
const REDS = [
  "#fff5f0",
  "#fee0d2",
  "#fcbba1",
  "#fc9272",
  "#fb6a4a",
  "#ef3b2c",
  "#cb181d",
  "#a50f15",
  "#67000d",
];
const RANGES: Record<TraceKind, string[]> = {
  "state": PURPLES,
  "mlp": GREENS,
  "attn": REDS,
  "state-no-mlp": PURPLES,
  "state-no-attn": PURPLES,
};

/** Drawn on white ground wherever they are shown: the palest cells mean "nothing". */
const GROUND = "#ffffff";

const DASHES = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2]];

/** Panels in a row. */
const PER_ROW = 3;

/** Cells of a layer are at least so wide, and maps about so wide together, in pixels. */
const CELL = 7, MAP = 190, ROW = 18;

/** Heat maps of one fact: P(answer) with the state restored, from the corrupted probability on. */
export function factPicture(trace: FactTrace, captions: Captions): Spec {
  const [first, end] = trace.subjectTokens;
  const labels = trace.tokens.map((token, t) => readable(token) + (t >= first && t < end ? "*" : ""));
  const panels = Object.entries(trace.scores).map(([kind, grid]) => ({
    kind: kind as TraceKind,
    grid,
    domain: [trace.corrupted, Math.max(trace.corrupted + 1e-9, ...grid.flat())] as [number, number],
    legend: `p(${readable(trace.answer).trim()})`,
  }));
  return pictureOf(panels, labels, captions, {
    text: `“${trace.prompt}” → “${trace.answer.trim()}”`,
    subtitle: `${captions.model}: P = ${percent(trace.clean)}, with the subject corrupted ${
      percent(trace.corrupted)
    }`,
  });
}

/** Heat maps of averages: indirect effects by class of tokens, none below zero. */
export function averagesPicture(averages: TraceAverages, facts: string, captions: Captions): Spec {
  const { clean, corrupted, total } = averages;
  const panels = Object.entries(averages.kinds).map(([kind, { effects }]) => {
    const grid = effects.map((row) => row.map(({ mean }) => Math.max(0, mean)));
    return {
      kind: kind as TraceKind,
      grid,
      domain: [0, Math.max(1e-9, ...grid.flat())] as [number, number],
      legend: "AIE",
    };
  });
  const labels = TOKEN_CLASSES.map((label, c) => c < 3 ? `${label}*` : label);
  return pictureOf(panels, labels, captions, {
    text: `Average indirect effects over ${facts}`,
    subtitle: `${captions.model}: P = ${percent(clean.mean)}, corrupted ${percent(corrupted.mean)}, ` +
      `total effect ${percent(total.mean)} ± ${percent(total.ci95)}`,
  });
}

/** Average indirect effects by layer at the last subject token and at the last token, with 95 % intervals. */
export function effectsPicture(averages: TraceAverages, facts: string, captions: Captions): Spec {
  const kinds = Object.entries(averages.kinds) as [TraceKind, KindAverages][];
  const classes = ["Last subject token", "Last token"] as const;
  const values = kinds.flatMap(([kind, { effects }]) =>
    classes.flatMap((token) =>
      effects[TOKEN_CLASSES.indexOf(token)].map(({ mean, ci95 }, layer) => ({
        ...{ token, layer, mean: 100 * mean, low: 100 * (mean - ci95), high: 100 * (mean + ci95) },
        what: titleOf(kind, captions.window),
      }))
    )
  );
  const series = kinds.map(([kind]) => titleOf(kind, captions.window));
  const colour = {
    field: "what",
    type: "nominal",
    title: null,
    scale: { domain: series, range: [COLOURS[3], COLOURS[2], COLOURS[1], COLOURS[0], COLOURS[4]] },
    legend: {
      orient: "bottom",
      columns: 3,
      symbolType: "stroke",
      symbolStrokeWidth: 2,
      symbolOpacity: 1,
      symbolSize: 240,
    },
  };
  // Lines that lie on each other stay visible.
  const dash = {
    field: "what",
    type: "nominal",
    title: null,
    scale: { domain: series, range: DASHES.slice(0, series.length) },
    legend: colour.legend,
  };
  const x = {
    field: "layer",
    type: "quantitative",
    title: "layer (centre of the window)",
    axis: { tickMinStep: 1, format: "d", grid: false, labelFlush: false },
    scale: { nice: false, zero: false },
  };
  const y = { type: "quantitative", title: "average indirect effect, %", axis: { tickCount: 6 } };
  return {
    background: GROUND,
    title: {
      text: `Effects by layer over ${facts}`,
      subtitle: `${captions.model}; bands are 95 % intervals`,
      offset: 14,
    },
    data: { values },
    facet: { column: { field: "token", type: "nominal", sort: [...classes], title: null } },
    resolve: { scale: { y: "independent" } },
    spacing: 50,
    spec: {
      width: 300,
      height: 200,
      layer: [
        {
          mark: { type: "area", opacity: 0.15 },
          encoding: {
            x,
            y: { ...y, field: "low" },
            y2: { field: "high" },
            color: colour,
          },
        },
        {
          mark: { type: "line", strokeWidth: 1.8 },
          encoding: { x, y: { ...y, field: "mean" }, color: colour, strokeDash: dash },
        },
        { mark: { type: "rule", color: INKS.soft, strokeDash: [3, 3] }, encoding: { y: { datum: 0 } } },
      ],
    },
  };
}

interface Panel {
  kind: TraceKind;
  /** By token and layer. */
  grid: readonly (readonly number[])[];
  domain: [low: number, high: number];
  /** What the colour bar measures. */
  legend: string;
}

function pictureOf(
  panels: readonly Panel[],
  labels: readonly string[],
  captions: Captions,
  title: { text: string; subtitle: string },
): Spec {
  return {
    background: GROUND,
    title: { ...title, offset: 14 },
    spacing: { row: 26, column: 24 },
    columns: PER_ROW,
    concat: panels.map((panel, i) => heatMap(panel, i % PER_ROW === 0 ? labels : undefined, captions)),
    resolve: { scale: { color: "independent", x: "independent", y: "independent" } },
  };
}

function heatMap(
  { kind, grid, domain, legend }: Panel,
  labels: readonly string[] | undefined,
  captions: Captions,
): Spec {
  const layers = grid[0].length;
  const width = Math.max(CELL, Math.round(MAP / layers)) * layers;
  const values = grid.flatMap((row, token) => row.map((value, layer) => ({ token, layer, value })));
  const every = [1, 2, 5, 10, 20].find((n) => layers / n <= 8) ?? 50;
  const windowed = kind === "mlp" || kind === "attn";
  return {
    title: { text: titleOf(kind, captions.window), anchor: "middle", fontSize: 12, fontWeight: "normal" },
    width,
    height: ROW * grid.length,
    data: { values },
    mark: { type: "rect", stroke: "#ffffff", strokeWidth: 0.4 },
    encoding: {
      x: {
        field: "layer",
        type: "ordinal",
        title: windowed ? "centre of the window" : "layer",
        axis: { values: ticks(layers, every), labelAngle: 0, ticks: true, domain: false },
      },
      y: {
        field: "token",
        type: "ordinal",
        title: null,
        axis: labels
          ? {
            labelExpr: `${JSON.stringify(labels)}[datum.value]`,
            ticks: false,
            domain: false,
            labelPadding: 6,
          }
          : null,
      },
      color: {
        field: "value",
        type: "quantitative",
        scale: { range: RANGES[kind], domain: spread(domain), clamp: true, nice: false },
        legend: {
          orient: "right",
          title: legend,
          titleFontSize: 11,
          titleFontWeight: "normal",
          labelFontSize: 10,
          offset: 8,
          gradientThickness: 10,
          gradientLength: Math.max(60, ROW * grid.length - 24),
          tickCount: 4,
          format: "~p",
          direction: "vertical",
        },
      },
    },
  };
}

/** Places of the nine colours. */
function spread([low, high]: [number, number]): number[] {
  return PURPLES.map((_, i) => low + (high - low) * i / (PURPLES.length - 1));
}

function ticks(layers: number, every: number): number[] {
  return Array.from({ length: Math.ceil(layers / every) }, (_, i) => i * every);
}

function titleOf(kind: TraceKind, window: number): string {
  switch (kind) {
    case "state":
      return "Single state";
    case "mlp":
      return `MLP, window of ${window}`;
    case "attn":
      return `Attention, window of ${window}`;
    case "state-no-mlp":
      return "Single state, MLP severed";
    case "state-no-attn":
      return "Single state, attention severed";
  }
}

/** A token's text on an axis: blanks at its ends say nothing there. */
function readable(token: string): string {
  const text = token.replaceAll("\n", "↵").replaceAll("\t", "⇥").trim();
  return text || "␣";
}

function percent(p: number): string {
  return `${(100 * p).toFixed(1)} %`;
}
