/**
 * The report for spreadsheets and scripts (RFC 4180): one row for each run, stage and metric, or for each case
 * and metric. Values are as stored, without units or rounding.
 */
import { familyOf } from "./families.ts";
import { driftName, type Group, type LabelledRun } from "./groups.ts";
import type { Metrics, Statistics } from "../records.ts";

const RUN_HEAD = [
  "run",
  "model",
  "model_hash",
  "dataset",
  "dataset_hash",
  "protocol",
  "batch",
  "cases",
  "method",
  "seed",
  "adapter",
  "stage",
  "family",
  "metric",
  "mean",
  "sd",
  "ci95",
  "n",
];

const CASE_HEAD = ["run", "method", "protocol", "id", "index", "stage", "family", "metric", "value"];

/** Means with their spread. Stages: before, after, retained. */
export function csvReport(groups: readonly Group[]): string {
  return csv([RUN_HEAD, ...groups.flatMap(({ runs }) => runs.flatMap(runRows))]);
}

/** Every case's metrics. */
export function csvCases(groups: readonly Group[]): string {
  return csv([CASE_HEAD, ...groups.flatMap(({ runs }) => runs.flatMap(caseRows))]);
}

/** Whether a file's beginning is that of one of these reports. */
export function isCsvReport(text: string): boolean {
  return [RUN_HEAD, CASE_HEAD].some((head) => text.startsWith(csv([head])));
}

type Value = string | number | undefined;

function runRows({ label, config, summary }: LabelledRun): Value[][] {
  const { model, dataset, protocol, batch, method, seed, adapter } = config;
  const start = [label, model.name, model.hash, dataset.name, dataset.hash, protocol, batch];
  return (["before", "after", "retained"] as const).flatMap((stage) => {
    const score = summary.score[stage];
    const rows: [string, Partial<Statistics[string]>][] = [
      ...Object.entries(summary.metrics[stage] ?? {}),
      ...(score === undefined
        ? []
        : [["Score", { mean: score, n: summary.cases }] as [string, Partial<Statistics[string]>]]),
      ...(stage === "retained" ? [] : drifted(summary.drift?.[stage])),
    ];
    return rows.map(([metric, { mean, sd, ci95, n }]) => [
      ...start,
      summary.cases,
      method,
      seed,
      adapter,
      stage,
      familyOf(metric).title,
      metric,
      mean,
      sd,
      ci95,
      n,
    ]);
  });
}

function caseRows({ label, config: { method, protocol }, lines, retained }: LabelledRun): Value[][] {
  const late = new Map(retained?.map(({ index, metrics }) => [index, metrics]));
  return lines.flatMap(({ id, index, metrics, drift }) => {
    const stages: [string, Metrics][] = [
      ["before", { ...metrics.before, ...Object.fromEntries(drifted(drift?.before)) }],
      ["after", { ...metrics.after, ...Object.fromEntries(drifted(drift?.after)) }],
      ["retained", late.get(index) ?? {}],
    ];
    return stages.flatMap(([stage, values]) =>
      Object.keys(values).sort().map((metric) => [
        label,
        method,
        protocol,
        id,
        index,
        stage,
        familyOf(metric).title,
        metric,
        values[metric] ?? undefined,
      ])
    );
  });
}

function drifted<V>(values: Record<string, V> | undefined): [string, V][] {
  return Object.entries(values ?? {}).map(([name, value]) => [driftName(name), value]);
}

function csv(rows: readonly Value[][]): string {
  return rows.map((row) => row.map(field).join(",") + "\r\n").join("");
}

/** Texts that a spreadsheet would take for a formula get an apostrophe, as OWASP advises; numbers stay numbers. */
function field(value: Value): string {
  if (value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
