/**
 * Pictures along a number of edits: what a larger batch or a longer sequence does to the edits (in the manner
 * of figures 6 and 7 of Yao et al. 2023, "Editing Large Language Models"), and how far the model drifts.
 */
import { about } from "./about.ts";
import type { Picture } from "./charts.ts";
import { driftName, type Group, type LabelledRun, type Stage } from "./groups.ts";
import { COLOURS, INKS, type Spec } from "./svg.ts";

/** The survey's three axes, as EasyEdit measures them. */
const PROPERTIES = ["reliability", "generality", "locality"];

/** A curve over batch sizes: batch runs of one dataset and model, with single edits as batches of one. */
export function batchCurve(groups: readonly Group[], name: string): Picture | undefined {
  const runs = groups.flatMap(({ protocol, runs }) =>
    protocol === "single" || protocol === "batch" ? runs : []
  );
  return curve(runs, {
    name,
    x: ({ config }) => config.batch,
    stage: "after",
    title: "Edits made together",
    axis: "edits in a batch",
    caption:
      "EasyEdit's shares of tokens right after batches of so many edits; a batch of 1 is a single edit.",
  });
}

/** A curve over numbers of edits in sequence, read after the last one. */
export function sequenceCurve(groups: readonly Group[], name: string): Picture | undefined {
  const runs = groups.flatMap(({ protocol, runs }) => protocol === "sequential" ? runs : []);
  return curve(runs, {
    name,
    x: ({ lines }) => lines.length,
    stage: "retained",
    title: "Edits made in sequence",
    axis: "edits in the sequence",
    caption: "EasyEdit's shares of tokens over all edits of the sequence, read after the last one.",
  });
}

interface CurveOptions {
  name: string;
  x(run: LabelledRun): number;
  stage: Exclude<Stage, "unedited">;
  title: string;
  axis: string;
  caption: string;
}

function curve(runs: readonly LabelledRun[], options: CurveOptions): Picture | undefined {
  const { name, x, stage, title, axis, caption } = options;
  const values = runs.flatMap((run) =>
    PROPERTIES.flatMap((property) => {
      const found = run.summary.metrics[stage]?.[`easyedit.${property}`];
      if (!found) return [];
      const mean = 100 * found.mean, half = 100 * found.ci95;
      const low = Math.max(0, mean - half), high = Math.min(100, mean + half);
      return [{ series: run.series, property, x: x(run), mean, low, high }];
    })
  );
  const places = [...new Set(values.map(({ x }) => x))].sort((a, b) => a - b);
  if (places.length < 2) return undefined;
  const series = [...new Set(values.map(({ series }) => series))];
  const y = { type: "quantitative", scale: { domain: [0, 100] } };
  return {
    name,
    title,
    caption: `${caption} Lines at the points are 95 % intervals; the horizontal axis is logarithmic.`,
    spec: {
      data: { values },
      facet: { column: { field: "property", type: "nominal", sort: PROPERTIES, title: null } },
      spacing: { column: 24 },
      spec: {
        width: 220,
        height: 190,
        encoding: {
          x: {
            field: "x",
            type: "quantitative",
            scale: { type: "log", domain: [places[0], places.at(-1)], nice: false, padding: 12 },
            axis: { values: thinned(places), format: ",d", title: axis, grid: false },
          },
          color: channel(series, COLOURS),
        },
        layer: [
          { mark: { type: "line", strokeWidth: 2 }, encoding: { y: { field: "mean", ...y, title: "%" } } },
          {
            mark: { type: "rule", strokeWidth: 1.2 },
            encoding: { y: { field: "low", ...y }, y2: { field: "high" } },
          },
          {
            mark: { type: "point", filled: true, size: 55, opacity: 1 },
            encoding: { y: { field: "mean", ...y }, shape: channel(series, SHAPES) },
          },
        ],
      },
    },
  };
}

/** Places on a logarithmic axis that leave room for their numbers: at least a third of a decade apart. */
function thinned(places: readonly number[]): number[] {
  const kept: number[] = [];
  for (const place of places) if (!kept.length || place >= kept.at(-1)! * 2) kept.push(place);
  return kept;
}

const SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"];

/** Lines that lie on each other stay visible. */
const DASHES = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2], [12, 4]];

function channel(series: readonly string[], values: readonly unknown[]): Spec {
  const range = series.map((_, i) => values[i % values.length]);
  return { field: "series", type: "nominal", scale: { domain: series, range }, title: null };
}

/** Drift after every edit: along the sequence, or edit by edit where each is undone. */
export function driftCurve(group: Group, name: string): Picture | undefined {
  const runs = group.runs.filter(({ summary }) => summary.drift);
  const names = [...new Set(runs.flatMap(({ summary }) => Object.keys(summary.drift!.after)))].sort();
  if (!names.length) return undefined;
  const sequential = group.protocol.startsWith("sequential");
  const longest = Math.max(...runs.map(({ lines }) => lines.length));
  // A line may have any number of points; points of their own must stay few enough to be drawn.
  const stride = sequential ? 1 : Math.ceil(longest / 300);
  const values = runs.flatMap(({ label, lines }) =>
    lines.flatMap(({ drift }, i) =>
      i % stride ? [] : names.flatMap((metric) => {
        const value = drift?.after[metric], before = drift?.before[metric];
        const { scale, unit } = about(driftName(metric));
        const plain = metric.replace(/^drift\./, "");
        const panel = unit ? `${plain} (${unit})` : plain;
        return typeof value === "number"
          ? [{ panel, series: label, x: i + 1, y: value * scale, before: before && before * scale }]
          : [];
      })
    )
  );
  const panels = [...new Set(values.map(({ panel }) => panel))];
  const series = [...new Set(values.map(({ series }) => series))];
  return {
    name,
    title: "Drift",
    caption: sequential
      ? "The model elsewhere after so many edits; the broken line is the unedited model."
      : `The model elsewhere after ${
        stride > 1 ? `one in ${stride} edits` : "each edit"
      }, which is then undone; ` +
        "the broken line is the unedited model.",
    spec: {
      data: { values },
      facet: { field: "panel", type: "nominal", sort: panels, title: null },
      columns: Math.min(2, panels.length),
      spacing: { row: 16, column: 50 },
      resolve: { scale: { y: "independent" }, axis: { x: "independent", y: "independent" } },
      spec: {
        width: 300,
        height: 150,
        layer: [
          {
            mark: { type: "rule", strokeDash: [4, 4], color: INKS.soft },
            transform: [{ filter: "isValid(datum.before)" }, {
              aggregate: [{ op: "min", field: "before", as: "unedited" }],
            }],
            encoding: { y: { field: "unedited", type: "quantitative" } },
          },
          {
            mark: sequential ? { type: "line", strokeWidth: 1.8 } : { type: "point", size: 18, filled: true },
            encoding: {
              x: {
                field: "x",
                type: "quantitative",
                title: sequential ? "edits made" : "edit",
                scale: { domain: [1, Math.max(2, longest)], nice: false },
                axis: { tickMinStep: 1, tickCount: 6, format: "d", grid: false },
              },
              y: {
                field: "y",
                type: "quantitative",
                title: null,
                scale: { zero: false },
                axis: { tickCount: 5, minExtent: 36 },
              },
              color: channel(series, COLOURS),
              ...(sequential && { strokeDash: channel(series, DASHES) }),
            },
          },
        ],
      },
    },
  };
}
