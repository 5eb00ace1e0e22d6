/** The picture of a training: its losses step by step, and what the editor can do at every validation. */
import { COLOURS, drawSvg, type Spec } from "../evaluation/report/svg.ts";
import type { TrainingState } from "./folder.ts";

/** Names and colours of the curves. */
const LOSSES = { edit: "edit", loc: "locality" };
const SHARES = { edit: "edit success", paraphrase: "paraphrase", locality: "locality" };

/** Draws it as an SVG for white paper. */
export async function drawCurves(
  { losses, validations, best }: TrainingState,
  title: string,
): Promise<string> {
  const seen = validations.flatMap(({ step, editLoss, locLoss }) => [
    { step, series: LOSSES.edit, y: editLoss },
    { step, series: LOSSES.loc, y: locLoss },
  ]);
  const trained = smoothed(losses).flatMap(({ step, edit, loc }) => [
    { step, series: LOSSES.edit, y: edit },
    { step, series: LOSSES.loc, y: loc },
  ]);
  const shares = validations.flatMap((at) =>
    (Object.keys(SHARES) as (keyof typeof SHARES)[]).map((key) => (
      { step: at.step, series: SHARES[key], y: 100 * at[key] }
    ))
  );
  const kept = best ? [{ step: best.step }] : [];
  const x = {
    field: "step",
    type: "quantitative",
    title: "step",
    // Both pictures from the first step to the last.
    scale: { nice: false, domain: [0, Math.max(1, ...losses.map(({ step }) => step))] },
    axis: { grid: false, tickCount: 8 },
  };
  const colour = (names: string[]) => (
    {
      field: "series",
      type: "nominal",
      title: null,
      scale: { domain: names, range: COLOURS.slice(0, names.length) },
    }
  );
  const positive = [...trained, ...seen].filter(({ y }) => y > 0);
  const spec: Spec = {
    title: {
      text: title,
      subtitle: best ? `The editor kept is that of step ${best.step} (vertical line)` : "",
    },
    vconcat: [
      {
        width: 560,
        height: 190,
        layer: [
          {
            data: { values: positive.filter((p) => trained.includes(p)) },
            mark: { type: "line", strokeWidth: 1.5, opacity: 0.6, clip: true },
            encoding: { x, y: logarithmic(), color: colour(Object.values(LOSSES)) },
          },
          {
            data: { values: positive.filter((p) => seen.includes(p)) },
            mark: { type: "point", size: 40, filled: true },
            encoding: { x, y: logarithmic(), color: colour(Object.values(LOSSES)) },
          },
          rule(kept, x),
        ],
      },
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
    ],
    resolve: { scale: { color: "independent" } },
  };
  return await drawSvg(spec, "training", "paper");
}

function logarithmic() {
  return {
    field: "y",
    type: "quantitative",
    title: "loss (points: validation)",
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
