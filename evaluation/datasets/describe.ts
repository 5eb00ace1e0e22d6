/** A dataset in lines for people. */
import type { Dataset } from "../cases.ts";
import { placesIn } from "./read.ts";

/** What a command prints about a dataset before it uses it: one fact a line. */
export function describeDataset(dataset: Dataset): string[] {
  const { name, layout, hash, total, cases, unusable, duplicates, conflicts, gives, lacks, notes } = dataset;
  const probes = cases.reduce((sum, one) => sum + one.probes.length, 0);
  const edits = cases.reduce((sum, { requests }) => sum + requests.length, 0);
  const where = placesIn([...cases, ...unusable]);
  const reasons = Map.groupBy(unusable, ({ why }) => why);
  return [
    `${name}: ${layout}, sha256 ${hash.slice(0, 16)}`,
    `${count(total, "record")}, ${count(cases.length, "case")} with ${count(edits, "edit")} and ${
      count(probes, "probe")
    }`,
    ...[...reasons].map(([why, list]) =>
      `left out: ${count(list.length, "record")} (${where(list)}): ${why}`
    ),
    ...(duplicates.length ? [`repeated edits: ${pairs(duplicates, "repeats")}`] : []),
    ...(conflicts.length ? [`contradictory edits: ${pairs(conflicts, "contradicts")}`] : []),
    `metrics: ${gives.join(", ")}`,
    ...[...Map.groupBy(lacks, ({ why }) => why)].map(([why, list]) =>
      `no ${list.map(({ metric }) => metric).join(", ")}: ${why}`
    ),
    ...notes.map((note) => `note: ${note}`),
  ];
}

function pairs(list: readonly { id: string; of: string }[], what: string): string {
  const first = list.slice(0, 5).map(({ id, of }) => `${id} ${what} ${of}`).join(", ");
  return list.length > 5 ? `${list.length} (${first} and ${list.length - 5} more)` : first;
}

function count(n: number, what: string): string {
  return `${n.toLocaleString("en-US")} ${what}${n === 1 ? "" : "s"}`;
}
