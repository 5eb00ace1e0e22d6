/**
 * Pictures of single runs side by side: metrics with their intervals, time, memory, and drift. Each is a
 * Vega-Lite specification made of plain rows; what the rows say is in the caption.
 */
import { about, decimals, fewer } from "./about.ts";
import { namesOf } from "./tables.ts";
import type { Family } from "./families.ts";
import type { Block, Group, LabelledRun } from "./groups.ts";
import { COLOURS, GREY, INKS, type Spec } from "./svg.ts";

/** A picture and what it shows. */
export interface Picture {
  /** Unique on the page: "ranking-1". */
  name: string;
  title: string;
  /** A sentence or two: what is drawn, in which unit, with which interval. */
  caption: string;
  spec: Spec;
}

/** Height of a bar with the space to the next one, in pixels. */
const STEP = 20;

/** One panel a metric, one bar a row of the block; lines are 95 % intervals of the mean. */
export function metricBars(block: Block, family: Family, metrics: readonly string[], name: string): Picture {
  const labels = block.rows.map(({ label }) => label);
  const units = new Set(metrics.map((metric) => about(metric).unit));
  const share = units.size === 1 && units.has("%");
  const { title, headings } = namesOf(family, metrics);
  const values = metrics.flatMap((metric, i) => {
    const { scale } = about(metric);
    return block.rows.flatMap(({ label, evaluated, cells: { [metric]: cell } }) => {
      if (!cell) return [];
      const mean = cell.mean * scale, half = (cell.ci95 ?? 0) * scale;
      // A share has no mass beyond 0 and 100, whatever the normal approximation says.
      const clip = (x: number) => share && mean >= 0 ? Math.min(100, Math.max(0, x)) : x;
      return [{
        panel: headings[i],
        label,
        mean,
        low: clip(mean - half),
        high: clip(mean + half),
        end: Math.max(0, clip(mean + half)),
        text: decimals(mean, scale) + fewer(cell, evaluated),
      }];
    });
  });
  const sequential = block.rows.some(({ stage }) => stage === "retained");
  const bounded = share && values.every(({ low }) => low >= 0);
  return {
    name,
    title,
    caption:
      `${family.note} Means over ${block.cases} cases, or n where it is said; lines are 95 % intervals of the mean.`,
    spec: barPanels(values, labels, {
      x: bounded ? { domain: [0, 100], nice: false } : {},
      independent: !bounded,
      tint: block.rows.map(({ stage }) =>
        stage === "unedited" ? GREY : stage === "after" && sequential ? COLOURS[5] : COLOURS[0]
      ),
    }),
  };
}

interface Bar {
  panel: string;
  label: string;
  mean: number;
  low: number;
  high: number;
  /** Where the value is written. */
  end: number;
  text: string;
}

interface PanelOptions {
  /** The scale of values. */
  x: Spec;
  independent: boolean;
  /** Colours of the rows. */
  tint: string[];
}

/** Horizontal bars, three panels in a line; names of rows stand on the left. */
function barPanels(values: Bar[], labels: string[], { x, independent, tint }: PanelOptions): Spec {
  const y = { field: "label", type: "nominal", sort: null, scale: { domain: labels }, title: null };
  const panels = [...new Set(values.map(({ panel }) => panel))];
  return {
    data: { values },
    facet: { field: "panel", type: "nominal", sort: panels, title: null },
    columns: panels.length === 4 ? 2 : Math.min(3, panels.length),
    spacing: { row: 14, column: 34 },
    resolve: { axis: { x: "independent" }, ...(independent && { scale: { x: "independent" } }) },
    spec: {
      width: 210,
      height: { step: STEP },
      layer: [
        {
          mark: { type: "bar", height: STEP * 0.62 },
          encoding: {
            x: { field: "mean", type: "quantitative", scale: x, title: null, axis: { tickCount: 5 } },
            color: {
              field: "label",
              type: "nominal",
              scale: { domain: labels, range: tint },
              legend: null,
            },
          },
        },
        {
          mark: { type: "rule", color: INKS.ink, strokeWidth: 1.5 },
          encoding: { x: { field: "low", type: "quantitative" }, x2: { field: "high" } },
        },
        {
          mark: { type: "text", align: "left", dx: 5, color: INKS.ink, fontSize: 10 },
          encoding: {
            x: { field: "end", type: "quantitative" },
            text: { field: "text", type: "nominal" },
          },
        },
      ],
      encoding: { y },
    },
  };
}

/** Seconds a case in editing and in evaluating. */
export function timeBars(group: Group, name: string): Picture {
  const rows = group.runs.flatMap(({ label, summary: { time_s: { edit, evaluate }, cached_targets } }) => [
    {
      ...{ label, part: "editing", value: edit.mean },
      text: `${decimals(edit.mean, 1)} s${cached_targets ? ", targets from the cache" : ""}`,
    },
    { label, part: "evaluating", value: evaluate.mean, text: `${decimals(evaluate.mean, 1)} s` },
  ]);
  return {
    name,
    title: "Time a case",
    caption: "Seconds a case, mean; the model's loading and one-off statistics are not in it.",
    spec: pairedBars(rows, group.runs, "seconds a case"),
  };
}

const GIB = 2 ** 30;

/** Highest memory of a run, on the GPU while editing and of the process. */
export function memoryBars(group: Group, name: string): Picture {
  const rows = group.runs.flatMap(({ label, summary: { memory } }) => [
    { label, part: "GPU", value: memory.gpu_peak_bytes / GIB, text: gib(memory.gpu_peak_bytes) },
    { label, part: "host", value: memory.host_peak_bytes / GIB, text: gib(memory.host_peak_bytes) },
  ]);
  return {
    name,
    title: "Memory",
    caption: "Peak memory: of the GPU while editing, weights included, and of the host process.",
    spec: pairedBars(rows, group.runs, "GiB"),
  };
}

function gib(bytes: number): string {
  return bytes < GIB / 10 ? `${(bytes / 2 ** 20).toFixed(0)} MiB` : `${(bytes / GIB).toFixed(2)} GiB`;
}

function pairedBars(
  values: { label: string; part: string; value: number; text: string }[],
  runs: readonly LabelledRun[],
  title: string,
): Spec {
  const parts = [...new Set(values.map(({ part }) => part))];
  return {
    data: { values },
    width: 420,
    height: { step: 15, for: "offset" },
    encoding: {
      y: {
        field: "label",
        type: "nominal",
        sort: null,
        scale: { domain: runs.map(({ label }) => label), paddingInner: 0.3, paddingOuter: 0.15 },
        title: null,
      },
      yOffset: { field: "part", type: "nominal", sort: parts, scale: { paddingInner: 0 } },
      x: { field: "value", type: "quantitative", title, axis: { tickCount: 6 } },
    },
    layer: [
      {
        mark: { type: "bar", height: 12 },
        encoding: {
          color: {
            field: "part",
            type: "nominal",
            scale: { domain: parts, range: [COLOURS[1], COLOURS[5]] },
            title: null,
          },
        },
      },
      {
        mark: { type: "text", align: "left", dx: 5, color: INKS.ink, fontSize: 10 },
        encoding: { text: { field: "text", type: "nominal" } },
      },
    ],
  };
}
