/**
 * From lines to a summary: the one function that the runner and the report share, so that merged shards say to
 * the last digit what one whole run says. Cases count in the order of `config.indices`, metrics go by name.
 */
import { InputError } from "../engine/io/errors.ts";
import { aggregate, harmonicScore } from "./metrics/index.ts";
import {
  type CaseLine,
  type Metrics,
  PHASES,
  type RetainedLine,
  type RunConfig,
  type Statistic,
  type Statistics,
  type Summary,
} from "./records.ts";

/**
 * Summarises a run, a shard of one, or merged shards.
 * @param lines in any order
 * @param retained of sequential protocols
 * @param time `total_s`: wall-clock seconds of the run, loading included
 * @throws {InputError} for a case that is not in `config.indices`, or is there twice
 */
export function summarise(
  config: RunConfig,
  lines: readonly CaseLine[],
  retained: readonly RetainedLine[] | undefined,
  time: { total_s: number },
): Summary {
  const positions = new Map(config.indices.map((index, position) => [index, position]));
  const cases = inOrder(lines, positions);
  const late = retained && inOrder(retained, positions);
  const before = statistics(cases.map(({ metrics }) => metrics.before));
  const after = statistics(cases.map(({ metrics }) => metrics.after));
  const last = late?.length ? statistics(late.map(({ metrics }) => metrics)) : undefined;
  const drift = driftReadings(config, cases, positions);
  const forgetting = late?.length ? forgettingOf(cases, late) : undefined;
  const cached = cases.reduce((sum, { edit }) => sum + (edit.cached_targets ?? 0), 0);
  const failures = cases.flatMap(({ edit }) => edit.failed ?? []);
  const restored = cases.flatMap((line) => line.restored ?? []);
  return {
    format: "emend-summary",
    format_version: 1,
    config,
    cases: cases.length,
    metrics: { before, after, ...(last && { retained: last }) },
    score: { ...score("before", before), ...score("after", after), ...(last && score("retained", last)) },
    ...(drift.length && {
      drift: {
        before: statistics(drift.map(({ before }) => before)),
        after: statistics(drift.map(({ after }) => after)),
      },
    }),
    ...(forgetting?.length && { forgetting }),
    ...(restored.length && { restored: restored.every(Boolean) }),
    time_s: times(cases, late ?? [], time.total_s),
    memory: {
      gpu_peak_bytes: Math.max(0, ...cases.map(({ memory }) => memory.gpu_peak_bytes)),
      host_peak_bytes: Math.max(0, ...cases.map(({ memory }) => memory.host_bytes)),
    },
    phases: phasesOf([...cases, ...late ?? []]),
    ...(cached && { cached_targets: cached }),
    ...(failures.length && { not_made: { cases: failures.length, first: failures[0] } }),
  };
}

/**
 * The metric that says whether an edit took, for all cases of a run alike: ranking success where every case
 * has it, else the whole answer under teacher forcing.
 * @returns a metric's name; `undefined` where some case has neither
 */
export function successMetric(lines: readonly { metrics: { after: Metrics } }[]): string | undefined {
  return ["ES", "tf.seq.rewrite"].find((name) =>
    lines.length > 0 && lines.every(({ metrics }) => Number.isFinite(metrics.after[name]))
  );
}

/** Sorted by position in the run. */
function inOrder<Line extends { id: string; index: number }>(
  lines: readonly Line[],
  positions: ReadonlyMap<number, number>,
): Line[] {
  const seen = new Set<number>();
  for (const { id, index } of lines) {
    if (!positions.has(index)) throw new InputError(`Case ${id} at position ${index} is none of the run's`);
    if (seen.has(index)) throw new InputError(`Case ${id} at position ${index} is there twice`);
    seen.add(index);
  }
  return lines.toSorted((a, b) => positions.get(a.index)! - positions.get(b.index)!);
}

/** {@link aggregate} in the order of the metrics' names; what is not finite does not count. */
function statistics(list: readonly Metrics[]): Statistics {
  // JSON has no NaN and no infinity: lines from a file and lines from memory must give the same.
  const finite = list.map((metrics) =>
    Object.fromEntries(Object.entries(metrics).filter(([, value]) => Number.isFinite(value)))
  );
  const found = aggregate(finite);
  return Object.fromEntries(Object.keys(found).sort().map((name) => [name, found[name]]));
}

/** Score of ROME's tables, where ES, PS and NS are there. */
function score<Stage extends keyof Summary["score"]>(
  stage: Stage,
  { ES, PS, NS }: Statistics,
): Partial<Record<Stage, number>> {
  if (!ES || !PS || !NS) return {};
  return { [stage]: harmonicScore(ES.mean, PS.mean, NS.mean) } as Partial<Record<Stage, number>>;
}

/** Drift is measured once a batch, and written into the line of each of its cases: one of them counts. */
function driftReadings(
  { batch }: RunConfig,
  cases: readonly CaseLine[],
  positions: ReadonlyMap<number, number>,
): NonNullable<CaseLine["drift"]>[] {
  const groups = Map.groupBy(cases, ({ index }) => Math.floor(positions.get(index)! / batch));
  return [...groups.values()].flatMap((group) => group.find(({ drift }) => drift)?.drift ?? []);
}

function forgettingOf(
  cases: readonly CaseLine[],
  late: readonly RetainedLine[],
): NonNullable<Summary["forgetting"]> {
  const name = successMetric(cases);
  const lateOf = new Map(late.map(({ index, metrics }) => [index, metrics]));
  return cases.flatMap(({ index, metrics }) => {
    const immediate = name && metrics.after[name], retained = name && lateOf.get(index)?.[name];
    return typeof immediate === "number" && typeof retained === "number"
      ? [{ index, immediate, retained }]
      : [];
  });
}

function times(cases: readonly CaseLine[], late: readonly RetainedLine[], total: number): Summary["time_s"] {
  const retaining = new Map(late.map(({ index, time_s }) => [index, time_s.evaluate]));
  const edits = cases.map(({ time_s }) => time_s.edit);
  const evaluations = cases.map(({ index, time_s }) => time_s.evaluate + (retaining.get(index) ?? 0));
  const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0);
  const editing = sum(edits), all = editing + sum(evaluations);
  return {
    total,
    edit: statistic(edits),
    evaluate: statistic(evaluations),
    outside_editing: all > 0 ? 1 - editing / all : 0,
  };
}

/** Mean seconds and highest memory of each phase. */
function phasesOf(lines: readonly Pick<CaseLine, "phases">[]): Summary["phases"] {
  return Object.fromEntries(PHASES.flatMap((phase) => {
    const costs = lines.flatMap(({ phases }) => phases[phase] ?? []);
    if (costs.length === 0) return [];
    return [[phase, {
      time_s: costs.reduce((sum, { time_s }) => sum + time_s, 0) / costs.length,
      gpu_peak_bytes: Math.max(...costs.map((cost) => cost.gpu_peak_bytes)),
      host_bytes: Math.max(...costs.map((cost) => cost.host_bytes)),
    }]];
  }));
}

function statistic(values: readonly number[]): Statistic {
  return aggregate(values.map((value) => ({ value }))).value ?? { mean: 0, sd: 0, ci95: 0, n: 0 };
}
