/** The picture of a training: its losses step by step, and what the editor can do at every validation. */
import { COLOURS, drawSvg, type Spec } from "../evaluation/report/svg.ts";
import type { TrainingState } from "./folder.ts";

/** Names and colours of the curves. */
const LOSSES = { edit: "edit", loc: "locality" };
const BOUND = { alpha: "α", margin: "margin" };
const SHARES = { edit: "edit success", paraphrase: "paraphrase", locality: "locality" };

/** Draws it as an SVG for white paper. */
export async function drawCurves(
  { losses, validations, best }: TrainingState,
  title: string,
): Promise<string> {
  const points = validations.flatMap(({ step, editLoss, locLoss }) => [
    { step, series: LOSSES.edit, y: editLoss },
    { step, series: LOSSES.loc, y: locLoss },
  ]);
  const line = smoothed(losses).flatMap(({ step, edit, loc }) => [
    { step, series: LOSSES.edit, y: edit },
    { step, series: LOSSES.loc, y: loc },
  ]);
  const shares = validations.flatMap((at) =>
    (Object.keys(SHARES) as (keyof typeof SHARES)[]).map((key) => (
      { step: at.step, series: SHARES[key], y: 100 * at[key] }
    ))
  );
  const kept = best ? [{ step: best.step }] : [];
  // All pictures from the first step to the last.
  const x = axisTo(Math.max(1, ...losses.map(({ step }) => step)));
  const bounded = losses.flatMap(({ step, alpha, margin }) =>
    alpha === undefined || margin === undefined
      ? []
      : [{ step, series: BOUND.alpha, y: alpha }, { step, series: BOUND.margin, y: margin }]
  );
  const spec: Spec = {
    title: {
      text: title,
      subtitle: best ? `The editor kept is that of step ${best.step} (vertical line)` : "",
    },
    vconcat: [
      lossPanel({ line, points, kept, names: Object.values(LOSSES) }, x),
      {
        width: 560,
        height: 190,
        layer: [
          {
            data: { values: shares },
            mark: { type: "line", strokeWidth: 2, point: { size: 30 } },
            encoding: {
              x,
              y: {
                field: "y",
                type: "quantitative",
                title: "validation, %",
                scale: { domain: [0, 102], nice: false },
                axis: { values: [0, 25, 50, 75, 100] },
              },
              color: colour(Object.values(SHARES)),
            },
          },
          rule(kept, x),
        ],
      },
      ...bounded.length ? [multiplier(bounded, x, colour(Object.values(BOUND)))] : [],
    ],
    resolve: { scale: { color: "independent" } },
  };
  return await drawSvg(spec, "training", "paper");
}

/** Of a constrained training: the multiplier and the bound, step by step; a multiplier of 0 has no place here. */
function multiplier(values: { step: number; series: string; y: number }[], x: Spec, color: Spec): Spec {
  return {
    ...{ width: 560, height: 110, data: { values: values.filter(({ y }) => y > 0) } },
    mark: { type: "line", strokeWidth: 1.5, point: { size: 15 } },
    encoding: { x, y: logarithmic("multiplier, margin"), color },
  };
}

/** The course of one part of a training that has several. */
export interface PartCourse {
  name: string;
  losses: { step: number; loss: number }[];
  validations: { step: number; loss: number }[];
  /** The step that was kept. */
  best: number;
}

/** Draws one picture a part: its loss as it was trained, and on what is never trained on. */
export async function drawCourses(parts: readonly PartCourse[], title: string): Promise<string> {
  const spec: Spec = {
    title: { text: title, subtitle: "What was kept is that of the vertical lines" },
    vconcat: parts.map(({ name, losses, validations, best }) => {
      const of = ({ step, loss }: { step: number; loss: number }) => ({ step, series: name, y: loss });
      const seen = {
        line: losses.map(of),
        points: validations.map(of),
        kept: [{ step: best }],
        names: [name],
      };
      return lossPanel(seen, axisTo(Math.max(1, ...losses.map(({ step }) => step))));
    }),
    resolve: { scale: { color: "independent" } },
  };
  return await drawSvg(spec, "training", "paper");
}

interface Losses {
  line: { step: number; series: string; y: number }[];
  points: Losses["line"];
  kept: { step: number }[];
  /** Of the series. */
  names: string[];
}

/** Losses as lines, those of validations as points, on a logarithmic axis. */
function lossPanel({ line, points, kept, names }: Losses, x: Spec): Spec {
  const positive = (of: Losses["line"]) => of.filter(({ y }) => y > 0);
  const encoding = { x, y: logarithmic(), color: colour(names) };
  return {
    width: 560,
    height: 190,
    layer: [
      {
        data: { values: positive(line) },
        mark: { type: "line", strokeWidth: 1.5, opacity: 0.6, clip: true },
        encoding,
      },
      { data: { values: positive(points) }, mark: { type: "point", size: 40, filled: true }, encoding },
      rule(kept, x),
    ],
  };
}

function axisTo(last: number): Spec {
  return {
    ...{ field: "step", type: "quantitative", title: "step" },
    scale: { nice: false, domain: [0, last] },
    axis: { grid: false, tickCount: 8 },
  };
}

function colour(names: string[]): Spec {
  const scale = { domain: names, range: COLOURS.slice(0, names.length) };
  return { field: "series", type: "nominal", title: null, scale };
}

function logarithmic(title = "loss (points: validation)") {
  return {
    field: "y",
    type: "quantitative",
    title,
    scale: { type: "log", nice: false },
    axis: { tickCount: 5, format: "~g" },
  };
}

function rule(values: { step: number }[], x: Spec): Spec {
  return { data: { values }, mark: { type: "rule", color: "#555555" }, encoding: { x } };
}

/** At most 40 points, each the mean of its neighbours: single steps differ by the edits that they drew. */
function smoothed(losses: TrainingState["losses"]): TrainingState["losses"] {
  const size = Math.max(1, Math.ceil(losses.length / 40));
  return Array.from({ length: Math.ceil(losses.length / size) }, (_, i) => {
    const part = losses.slice(i * size, (i + 1) * size);
    const mean = (key: "step" | "edit" | "loc" | "norm") =>
      part.reduce((sum, p) => sum + p[key], 0) / part.length;
    return { step: mean("step"), edit: mean("edit"), loc: mean("loc"), norm: mean("norm") };
  });
}
