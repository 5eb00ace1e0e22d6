/**
 * Averages of traces over facts by classes of tokens (Meng et al. 2022, figure 2 and appendix B.2; guide section
 * 12.2). Intervals are 1.96 standard errors of the indirect effects, which share their noise with the corrupted
 * run; the authors draw those of the scores.
 */
import type { TraceKind } from "./cells.ts";
import type { FactTrace } from "./trace.ts";

/** Classes of tokens, in the order of a prompt. */
export const TOKEN_CLASSES = [
  "First subject token",
  "Middle subject tokens",
  "Last subject token",
  "First subsequent token",
  "Further tokens",
  "Last token",
] as const;

/** A mean over facts with half its 95 % interval; `n` facts have such a value. */
export interface Mean {
  mean: number;
  ci95: number;
  n: number;
}

/** Averages over facts. */
export interface TraceAverages {
  /** P, P* and the total effect P − P*. */
  clean: Mean;
  corrupted: Mean;
  total: Mean;
  kinds: Partial<Record<TraceKind, KindAverages>>;
}

/** Averages of one kind. */
export interface KindAverages {
  /** Average indirect effects by class of tokens, in the order of {@link TOKEN_CLASSES}, and layer. */
  effects: Mean[][];
  /** Mean over facts of the largest indirect effect of all cells, and of those of the last subject token. */
  largest: Mean;
  largestLastSubject: Mean;
  /** Where the average indirect effect is largest. */
  peak: { token: typeof TOKEN_CLASSES[number]; layer: number; effect: Mean };
}

/** Averages traces of the same kinds. @throws {RangeError} when there is none */
export function averageTraces(traces: readonly FactTrace[]): TraceAverages {
  if (traces.length === 0) throw new RangeError("There is no trace to average");
  const kinds = Object.keys(traces[0].scores) as TraceKind[];
  return {
    clean: meanOf(traces.map(({ clean }) => clean)),
    corrupted: meanOf(traces.map(({ corrupted }) => corrupted)),
    total: meanOf(traces.map(({ clean, corrupted }) => clean - corrupted)),
    kinds: Object.fromEntries(kinds.map((kind) => [kind, averageKind(traces, kind)])),
  };
}

function averageKind(traces: readonly FactTrace[], kind: TraceKind): KindAverages {
  const effects = traces.map((t) => t.scores[kind]!.map((row) => row.map((p) => p - t.corrupted)));
  const layers = effects[0][0].length;
  const rows = traces.map((t, i) => classRows(effects[i], t.subjectTokens));
  const means = TOKEN_CLASSES.map((_, c) =>
    Array.from({ length: layers }, (_, layer) => meanOf(rows.flatMap((r) => r[c] ? [r[c][layer]] : [])))
  );
  const peak = means.flatMap((row, c) =>
    row.map((effect, layer) => ({ token: TOKEN_CLASSES[c], layer, effect }))
  )
    .filter(({ effect }) => effect.n > 0)
    .reduce((best, cell) => cell.effect.mean > best.effect.mean ? cell : best);
  return {
    effects: means,
    largest: meanOf(effects.map((grid) => Math.max(...grid.flat()))),
    largestLastSubject: meanOf(traces.map((t, i) => Math.max(...effects[i][t.subjectTokens[1] - 1]))),
    peak,
  };
}

/**
 * One row a class, or undefined where a prompt has no such token. A subject of one token is first and last; a
 * single token after the subject is the first subsequent and the last.
 */
export function classRows(
  grid: readonly (readonly number[])[],
  [first, end]: readonly [number, number],
): (readonly number[] | undefined)[] {
  const mean = (rows: readonly (readonly number[])[]) =>
    rows.length === 0
      ? undefined
      : rows[0].map((_, layer) => rows.reduce((sum, row) => sum + row[layer], 0) / rows.length);
  return [
    grid[first],
    mean(grid.slice(first + 1, end - 1)),
    grid[end - 1],
    grid[end],
    mean(grid.slice(end + 1, -1)),
    grid.at(-1),
  ];
}

function meanOf(values: readonly number[]): Mean {
  const n = values.length;
  if (n === 0) return { mean: 0, ci95: 0, n };
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const variance = n > 1 ? values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (n - 1) : 0;
  return { mean, ci95: 1.96 * Math.sqrt(variance / n), n };
}
