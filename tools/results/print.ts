/** The Markdown tables of docs/results.md, from the summaries of finished runs. */
import type { Statistics, Summary } from "../../evaluation/records.ts";
import type { PlannedRun, TableName } from "./plan.ts";

/** A run with what it gave. */
export interface Finished extends PlannedRun {
  summary: Summary;
}

const percent = (x: number | undefined) => x === undefined ? "–" : (100 * x).toFixed(1);
const mean = (of: Statistics | undefined, name: string) => of?.[name]?.mean;
const scores = (score: number | undefined, of: Statistics | undefined) =>
  [score, ...["ES", "PS", "NS"].map((name) => mean(of, name))].map(percent);

function markdown(head: string[], rows: string[][]): string {
  return [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

/** Score, ES, PS and NS are shares in percent; the last columns are seconds and the change elsewhere. */
function single(runs: Finished[]): string {
  const [{ summary: any }] = runs;
  const unedited = ["unedited", ...scores(any.score.before, any.metrics.before)];
  return markdown(
    ["method", "Score", "ES", "PS", "NS", "answer right", "KL elsewhere", "s an edit"],
    [
      [...unedited, percent(mean(any.metrics.before, "tf.seq.rewrite")), "", ""],
      ...runs.map(({ method, summary: { score, metrics, drift, time_s, cached_targets } }) => [
        method,
        ...scores(score.after, metrics.after),
        percent(mean(metrics.after, "tf.seq.rewrite")),
        mean(drift?.after, "drift.kl")?.toExponential(1) ?? "–",
        cached_targets ? "cached" : time_s.edit.mean.toFixed(2),
      ]),
    ],
  );
}

function batches(runs: Finished[]): string {
  return markdown(
    ["method", "batch", "records", "Score", "ES", "PS", "NS"],
    runs.map(({ method, batch, summary }) => [
      method,
      String(batch),
      String(summary.cases),
      ...scores(summary.score.after, summary.metrics.after),
    ]),
  );
}

function sequences(runs: Finished[]): string {
  return markdown(
    ["method", "batch", "edits", "Score at once", "Score at the end", "ES", "PS", "NS"],
    runs.map(({ method, batch, summary: { cases, score, metrics } }) => [
      method,
      String(batch),
      String(cases),
      percent(score.after),
      ...scores(score.retained, metrics.retained),
    ]),
  );
}

/** The table of finished runs. */
export function printTable(table: TableName, runs: Finished[]): string {
  if (runs.length === 0) return "No run is finished yet";
  return { single, batches, sequences }[table](runs);
}
