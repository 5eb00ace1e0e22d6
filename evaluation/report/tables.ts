/** Tables of one block of runs, one a family, as cells of text: what every output format lays out in its own way. */
import { type About, about, bestOf, commonPrefix, fewer, formatCell } from "./about.ts";
import { byFamily, type Family } from "./families.ts";
import type { Block } from "./groups.ts";

/** A family's numbers of a block. */
export interface Table {
  family: Family;
  metrics: string[];
  /** "Teacher forcing: whole answers (tf.seq.*, %)". */
  title: string;
  /** Without the prefix and the unit that the title has. */
  headings: string[];
  rows: { label: string; cells: { text: string; best: boolean }[] }[];
}

/** All tables of a block; without `detail` only those of families that are no breakdown of others. */
export function tablesOf(block: Block, options: { detail: boolean }): Table[] {
  return byFamily(block.rows.flatMap(({ cells }) => Object.keys(cells))).filter(({ family }) =>
    options.detail || !family.detail
  ).map(
    ({ family, metrics }) => {
      const names = namesOf(family, metrics);
      const best = metrics.map((metric) => bestOf(metric, block.rows));
      return {
        family,
        metrics,
        ...names,
        rows: block.rows.map((row) => ({
          label: row.label,
          cells: metrics.map((metric, i) => ({
            text: formatCell(metric, row.cells[metric]) +
              (row.cells[metric] ? fewer(row.cells[metric], row.evaluated) : ""),
            best: best[i].has(row),
          })),
        })),
      };
    },
  );
}

/** Names of a family's metrics without what they have in common, and a title that says it. */
export function namesOf(family: Family, metrics: readonly string[]): { title: string; headings: string[] } {
  const units = metrics.map((metric) => about(metric).unit);
  const unit = units.every((unit) => unit === units[0]) ? units[0] : undefined;
  const prefix = commonPrefix(metrics);
  const said = [...(prefix ? [`${prefix}*`] : []), ...(unit ? [unit] : [])];
  return {
    title: said.length ? `${family.title} (${said.join(", ")})` : family.title,
    headings: metrics.map((metric, i) => {
      const name = metric.slice(prefix.length);
      return unit === undefined && units[i] ? `${name} (${units[i]})` : name;
    }),
  };
}

/** What is known of the metrics of a table, in order. */
export function legendOf({ metrics }: Table): (About & { metric: string })[] {
  return metrics.map((metric) => ({ metric, ...about(metric) }));
}

/** Runs that can be compared with nothing have nothing to be best of. */
export function marksBest(tables: readonly Table[]): boolean {
  return tables.some(({ rows }) => rows.some(({ cells }) => cells.some(({ best }) => best)));
}
