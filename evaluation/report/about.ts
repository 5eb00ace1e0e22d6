/** How the report names a metric and writes its values: shares as percentages, everything else in its unit. */
import { metricInfo } from "../metrics/index.ts";
import type { Cell, Row } from "./groups.ts";

/** A metric for people. */
export interface About {
  /** One line. */
  title: string;
  /** What is computed; "" for metrics that are not known here. */
  formula: string;
  /** What a good value does not say. */
  misses: string;
  source: string;
  /** Written in headings; "" where there is none. */
  unit: string;
  /** From the stored value to the written one. */
  scale: number;
  better?: "higher" | "lower" | "closer to before";
}

/** What is known of a metric by its name. */
export function about(metric: string): About {
  const info = metricInfo(metric);
  if (info) return info;
  return { title: metric, formula: "", misses: "", source: "", unit: "", scale: 1 };
}

/** "(n 3)" where a value is over other cases than the rest of its row; "" where it is over all. */
export function fewer({ n }: Cell, cases: number): string {
  return n === cases ? "" : ` (n ${n})`;
}

/** "98.0 ± 1.2"; a mean alone where no interval is known, a dash where there is no value. */
export function formatCell(metric: string, cell: Cell | undefined): string {
  if (!cell) return "–";
  const { scale } = about(metric);
  const mean = cell.mean * scale, half = (cell.ci95 ?? 0) * scale;
  if (cell.ci95 === undefined || cell.n < 2) return decimals(mean, scale);
  if (scale === 100) return `${decimals(mean, scale)} ± ${decimals(half, scale)}`;
  // An interval of rounding errors is none.
  if (half <= 1e-9 * Math.abs(mean)) return `${decimals(mean, scale)} ± 0`;
  const places = 1 - Math.floor(Math.log10(half));
  if (places > 8 || Math.abs(mean) >= 1e6) return `${mean.toExponential(2)} ± ${half.toExponential(1)}`;
  return `${mean.toFixed(Math.max(0, places))} ± ${half.toFixed(Math.max(0, places))}`;
}

/** A value for people: a decimal for percentages, three digits for anything else. */
export function decimals(value: number, scale: number): string {
  if (scale === 100) return value.toFixed(1);
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3
    ? value.toExponential(1)
    : size >= 100
    ? value.toFixed(1)
    : value.toPrecision(3);
}

/**
 * What the names of a family's metrics begin with, up to a full stop: "tf.seq." of "tf.seq.rewrite" and
 * "tf.seq.paraphrase"; "" where a name would vanish.
 */
export function commonPrefix(metrics: readonly string[]): string {
  const parts = metrics.map((metric) => metric.split(".").slice(0, -1));
  const shared = parts[0].filter((part, i) => parts.every((other) => other[i] === part));
  return shared.length ? `${shared.join(".")}.` : "";
}

/**
 * The rows whose value of a metric is the best among the edited ones; none where there is nothing to compare.
 * Immediate and retained values are compared apart.
 */
export function bestOf(metric: string, rows: readonly Row[]): Set<Row> {
  const { better } = about(metric);
  const best = new Set<Row>();
  for (const stage of ["after", "retained"] as const) {
    const rivals = rows.filter((row) => row.stage === stage && row.cells[metric] && row.run!.missing === 0);
    if (!better || rivals.length < 2) continue;
    const before = rows.find((row) => row.stage === "unedited")?.cells[metric]?.mean;
    if (better === "closer to before" && before === undefined) continue;
    const merits = rivals.map(({ cells: { [metric]: { mean } } }) =>
      better === "higher" ? mean : better === "lower" ? -mean : -Math.abs(mean - before!)
    );
    const top = Math.max(...merits);
    if (merits.every((merit) => merit === top)) continue;
    rivals.forEach((row, i) => merits[i] === top && best.add(row));
  }
  return best;
}
