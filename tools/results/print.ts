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

/** Columns of records in CounterFact's layout, and of those that have answers but no rival ones. */
const SCORES = { ES: "ES", PS: "PS", NS: "NS", "answer right": "tf.seq.rewrite" };
const ANSWERS = {
  reliability: "easyedit.reliability",
  "answer right": "tf.seq.rewrite",
  generality: "easyedit.generality",
  locality: "easyedit.locality",
  portability: "easyedit.portability",
};

/** Shares in percent; the last columns are the change elsewhere and seconds. */
function single(runs: Finished[]): string {
  const [{ summary: any }] = runs;
  const scored = any.score.before !== undefined;
  const columns = scored ? SCORES : ANSWERS;
  const shares = (score: number | undefined, of: Statistics | undefined) =>
    [...scored ? [score] : [], ...Object.values(columns).map((name) => mean(of, name))].map(percent);
  return markdown(
    ["method", ...scored ? ["Score"] : [], ...Object.keys(columns), "KL elsewhere", "s an edit"],
    [
      ["unedited", ...shares(any.score.before, any.metrics.before), "", ""],
      ...runs.map(({ label, summary: { score, metrics, drift, time_s, cached_targets, not_made } }) => [
        not_made ? `${label} (${not_made.cases} not made)` : label,
        ...shares(score.after, metrics.after),
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

/** Every record right after its own edit, and once more after the last. */
function sequences(runs: Finished[]): string {
  const [{ summary: any }] = runs;
  const scored = any.score.before !== undefined;
  const columns = scored ? { ...SCORES, unchanged: "easyedit.locality" } : ANSWERS;
  const row = (name: string[], score: number | undefined, of: Statistics | undefined) => [
    ...name,
    ...scored ? [percent(score)] : [],
    ...Object.values(columns).map((column) => percent(mean(of, column))),
  ];
  return markdown(
    ["method", "batch", "edits", "read", ...scored ? ["Score"] : [], ...Object.keys(columns)],
    [
      row(["unedited", "", "", ""], any.score.before, any.metrics.before),
      ...runs.flatMap(({ label, batch, summary: { cases, score, metrics } }) => {
        const name = [label, String(batch), String(cases)];
        return [
          row([...name, "at once"], score.after, metrics.after),
          row([...name, "at the end"], score.retained, metrics.retained),
        ];
      }),
    ],
  );
}

/** The table of finished runs. */
export function printTable(table: TableName, runs: Finished[]): string {
  if (runs.length === 0) return "No run is finished yet";
  return { single, memory: single, batches, sequences }[table](runs);
}
