/**
 * Runs that may be compared: of one protocol, dataset and model. A group's runs stand in blocks, one for each
 * set of cases, for a method is only better than another on the same cases. Nothing is averaged over runs.
 */
import type { RunConfig, Statistic, Statistics, Summary } from "../records.ts";
import type { Run } from "./load.ts";

/** When a row's readings were taken. */
export type Stage = "unedited" | "after" | "retained";

/** A metric's value; without `ci95` where it is made of means (Score). */
export type Cell = Pick<Statistic, "mean" | "n"> & Partial<Statistic>;

/** A line of a table. */
export interface Row {
  label: string;
  stage: Stage;
  /** The run; absent for the unedited model. */
  run?: LabelledRun;
  /** Cases that the readings are over. */
  evaluated: number;
  cells: Record<string, Cell>;
}

/** A run with a name that no other run of its group has. */
export interface LabelledRun extends Run {
  label: string;
  /** Like `label`, but the same along a curve over batch sizes or numbers of edits. */
  series: string;
  /** Unique in the report: "run-1". */
  key: string;
}

/** Runs on the same cases. */
export interface Block {
  /** Cases that were wanted, all shards together. */
  cases: number;
  /** The unedited model first. */
  rows: Row[];
  runs: LabelledRun[];
}

/** Runs of one protocol, dataset and model. */
export interface Group {
  /** "single edits · counterfact.json · gpt2-xl". */
  title: string;
  protocol: RunConfig["protocol"];
  dataset: RunConfig["dataset"];
  model: RunConfig["model"];
  blocks: Block[];
  runs: LabelledRun[];
  /** What a reader of the numbers must know, sentences. */
  notes: string[];
}

const PROTOCOLS: Record<RunConfig["protocol"], string> = {
  single: "single edits",
  batch: "edits in batches",
  sequential: "edits in sequence",
  "sequential-batch": "batches in sequence",
};

/** A protocol for people. */
export function protocolTitle(protocol: RunConfig["protocol"]): string {
  return PROTOCOLS[protocol];
}

/** Groups runs in the order in which they are given. */
export function groupRuns(runs: readonly Run[]): Group[] {
  const keyed = runs.map((run, i) => ({ ...run, key: `run-${i + 1}` }));
  const groups = Map.groupBy(
    keyed,
    ({ config: { protocol, dataset, model } }) =>
      JSON.stringify([protocol, dataset.hash, dataset.name, model.hash, model.name]),
  );
  return [...groups.values()].map((members) => {
    const { protocol, dataset, model } = members[0].config;
    const labelled = label(members);
    const blocks = [...Map.groupBy(labelled, ({ config }) => JSON.stringify(config.indices)).values()].map(
      block,
    );
    return {
      title: `${PROTOCOLS[protocol]} · ${dataset.name} · ${model.name}`,
      protocol,
      dataset,
      model,
      blocks,
      runs: labelled,
      notes: notes(labelled),
    };
  });
}

function block(runs: LabelledRun[]): Block {
  const unedited: Row = {
    label: "unedited",
    stage: "unedited",
    evaluated: Math.max(...runs.map(({ summary }) => summary.cases)),
    cells: {},
  };
  // Readings before the edits are the same in all runs, but a run may have taken more of them.
  for (const { summary } of runs.toReversed()) Object.assign(unedited.cells, cellsOf(summary, "before"));
  const rows = runs.flatMap((run): Row[] => {
    const row = (stage: Stage, label: string, of: "after" | "retained"): Row => ({
      label,
      stage,
      run,
      evaluated: run.summary.cases,
      cells: { ...cellsOf(run.summary, of), ...(of === "retained" && finalDrift(run)) },
    });
    if (!run.summary.metrics.retained) return [row("after", run.label, "after")];
    return [
      row("after", `${run.label}, right after`, "after"),
      row("retained", `${run.label}, in the end`, "retained"),
    ];
  });
  return { cases: runs[0].config.indices.length, rows: [unedited, ...rows], runs };
}

/** A summary's stage as one table row: metrics, Score, and drift under "drift.". */
function cellsOf(
  { metrics, score, drift, cases }: Summary,
  stage: "before" | "after" | "retained",
): Row["cells"] {
  const elsewhere: Statistics = stage === "retained" ? {} : drift?.[stage] ?? {};
  const named = Object.entries(elsewhere).map(([name, value]) => [driftName(name), value]);
  const total = score[stage];
  return {
    ...metrics[stage],
    ...(total !== undefined && { Score: { mean: total, n: cases } }),
    ...Object.fromEntries(named),
  };
}

/** Drift after the last edit of a sequence, one reading; the stage before it has the mean along the way. */
function finalDrift({ lines }: Run): Row["cells"] {
  const last = Object.entries(lines.at(-1)?.drift?.after ?? {}).filter(([, mean]) => Number.isFinite(mean));
  return Object.fromEntries(last.map(([name, mean]) => [driftName(name), { mean, n: 1 }]));
}

/** Drift metrics are told from others by their name. */
export function driftName(name: string): string {
  return name.startsWith("drift.") ? name : `drift.${name}`;
}

/** Names runs by their method and whatever else tells those of one method apart. */
function label<R extends Omit<LabelledRun, "label" | "series">>(runs: readonly R[]): LabelledRun[] {
  const traits = runs.map(({ config }) => traitsOf(config));
  const named = runs.map((run, i) => {
    const rivals = traits.filter((_, j) => runs[j].config.method === run.config.method);
    const telling = Object.keys(traits[i]).filter((key) =>
      rivals.some((other) => other[key] !== traits[i][key])
    );
    const name = (keys: string[]) => {
      const said = keys.slice(0, 3).map((key) =>
        key === "cases" ? `${traits[i].cases} cases` : `${key} ${traits[i][key]}`
      );
      return said.length ? `${run.config.method} (${said.join(", ")})` : run.config.method;
    };
    return { ...run, label: name(telling), series: name(telling.filter((key) => !CURVES.includes(key))) };
  });
  return named.map((run) => {
    const twins = named.filter((other) => other.label === run.label);
    const part = run.missing > 0
      ? ` [${run.config.indices.length - run.missing} of ${run.config.indices.length} cases]`
      : "";
    const label = twins.length > 1 ? `${run.label} #${twins.indexOf(run) + 1}` : run.label;
    return { ...run, label: label + part };
  });
}

/** What curves are drawn over. */
const CURVES = ["batch", "cases"];

/** What may differ between runs of a group, the more telling first. */
function traitsOf(config: RunConfig): Record<string, string> {
  const { batch, indices, hparams, seed, recipe, statistics, readings, emend_version, adapter } = config;
  const settings = Object.entries(hparams).map(([key, value]) => [key, short(value)]);
  return {
    batch: String(batch),
    cases: String(indices.length),
    ...Object.fromEntries(settings),
    seed: String(seed),
    statistics: short(statistics.map(({ corpus, tokens }) => `${corpus} ${tokens}`)),
    version: emend_version,
    adapter,
    readings: short(readings),
    recipe: short(recipe),
  };
}

function short(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "none";
  return text.length > 30 ? `${text.slice(0, 29)}…` : text;
}

/** Sentences on what weakens the numbers of a group. */
function notes(runs: readonly LabelledRun[]): string[] {
  const out: string[] = [];
  for (const { label, config, lines, missing, summary } of runs) {
    const failed = lines.filter(({ edit }) => edit.failed !== undefined).length;
    if (missing) {
      out.push(`${label} is not whole: ${missing} of its ${config.indices.length} cases are missing.`);
    }
    if (failed) {
      out.push(`${label}: ${failed} of ${lines.length} edits could not be made; they count as unedited.`);
    }
    if (summary.restored === false) {
      out.push(`${label}: the weights did not come back bit for bit after an edit.`);
    }
  }
  for (const key of ["seed", "emend_version", "adapter"] as const) {
    const values = [...new Set(runs.map(({ config }) => String(config[key])))];
    if (values.length > 1) out.push(`The runs differ in ${key.replace("_", " ")}: ${values.join("; ")}.`);
  }
  for (const [name, values] of unequalBaselines(runs)) {
    out.push(`The unedited model's ${name} differs between runs on the same cases: ${values.join(", ")}.`);
  }
  return out;
}

/** Readings of the unedited model that should agree and don't, beyond rounding on two adapters. */
function unequalBaselines(runs: readonly LabelledRun[]): [string, string[]][] {
  const whole = runs.filter(({ missing }) => missing === 0);
  const sameCases = Map.groupBy(whole, ({ config }) => JSON.stringify(config.indices));
  return [...sameCases.values()].flatMap((members) => {
    const names = new Set(members.flatMap(({ summary }) => Object.keys(summary.metrics.before)));
    return [...names].flatMap((name): [string, string[]][] => {
      const means = members.flatMap(({ summary }) => summary.metrics.before[name]?.mean ?? []);
      const spread = Math.max(...means) - Math.min(...means);
      return spread > 0.005 * Math.max(1, ...means.map(Math.abs))
        ? [[name, means.map((m) => m.toPrecision(3))]]
        : [];
    });
  });
}
