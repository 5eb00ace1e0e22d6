/** The picture of forgetting: what later edits of a sequence do to earlier ones. */
import { successMetric } from "../summarise.ts";
import type { Picture } from "./charts.ts";
import type { Group } from "./groups.ts";
import { COLOURS, type Spec } from "./svg.ts";

/** Success of every edit right after it was made and after the last one, by its place in the sequence. */
export function forgettingCurve(group: Group, name: string): Picture | undefined {
  const runs = group.runs.filter(({ summary }) => (summary.forgetting?.length ?? 0) > 1);
  if (runs.length === 0) return undefined;
  const windows = new Map(runs.map((run) => [run, windowOf(run.summary.forgetting!.length)]));
  const values = runs.flatMap((run) => {
    const points = run.summary.forgetting!;
    const window = windows.get(run)!;
    return ["right after", "in the end"].flatMap((when, i) =>
      smoothed(points.map((point) => i === 0 ? point.immediate : point.retained), window)
        .map((mean, at) => ({ panel: run.label, when, x: at + 1, y: 100 * mean }))
    );
  });
  const metrics = [...new Set(runs.map(({ lines }) => successMetric(lines)))].join(", ");
  const said = [...new Set(windows.values())].sort((a, b) => a - b).join(" or ");
  return {
    name,
    title: "Forgetting",
    caption: `Success of the edit (${metrics}) by its place in the sequence: right after it was made, ` +
      `and after the last edit. The gap is what later edits took away. ` +
      (said === "1" ? "Not smoothed." : `Moving mean over ${said} edits, fewer at the ends.`),
    spec: {
      data: { values },
      facet: { field: "panel", type: "nominal", sort: runs.map(({ label }) => label), title: null },
      columns: Math.min(2, runs.length),
      spacing: { row: 16, column: 30 },
      spec: {
        width: runs.length > 1 ? 320 : 560,
        height: 170,
        mark: { type: "line", strokeWidth: 2, clip: true },
        encoding: {
          x: {
            field: "x",
            type: "quantitative",
            title: "place in the sequence",
            scale: { nice: false },
            axis: { tickMinStep: 1, tickCount: 8, format: "d", grid: false },
          },
          y: {
            field: "y",
            type: "quantitative",
            title: "%",
            scale: { domain: [-2, 102], nice: false },
            axis: {
              values: [0, 25, 50, 75, 100],
            },
          },
          color: when(COLOURS[1], COLOURS[0]),
          strokeDash: when([5, 4], [1, 0]),
        },
      },
      resolve: { scale: { x: "independent" } },
    },
  };
}

function when(first: unknown, last: unknown): Spec {
  return {
    field: "when",
    type: "nominal",
    sort: null,
    scale: { domain: ["right after", "in the end"], range: [first, last] },
    title: null,
  };
}

/** An odd window, about a tenth of the sequence, at most 51 edits. */
export function windowOf(edits: number): number {
  return Math.min(51, 2 * Math.floor(edits / 20) + 1);
}

/** Moving mean over an odd window that is cut off at the ends. */
export function smoothed(values: readonly number[], window: number): number[] {
  const reach = (window - 1) / 2;
  return values.map((_, i) => {
    const part = values.slice(Math.max(0, i - reach), i + reach + 1);
    return part.reduce((sum, x) => sum + x, 0) / part.length;
  });
}
