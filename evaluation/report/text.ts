/** The report in a terminal: a table for each family of metrics, no wider than the screen. */
import type { Group } from "./groups.ts";
import { legendOf, marksBest, type Table, tablesOf } from "./tables.ts";

/** @param width characters a line; columns that do not fit go into a table below */
export function textReport(groups: readonly Group[], width: number): string {
  return groups.map((group) => groupText(group, width)).join("\n\n") + "\n";
}

function groupText(group: Group, width: number): string {
  const parts = [group.title, "═".repeat(Math.min(width, [...group.title].length))];
  const legend = new Map<string, string>();
  let best = false;
  for (const block of group.blocks) {
    const tables = tablesOf(block, { detail: false });
    best ||= marksBest(tables);
    parts.push(`${block.cases} case${block.cases === 1 ? "" : "s"}, mean ± half the 95 % interval`);
    for (const table of tables) {
      parts.push("", table.title, ...columnsThatFit(table, width));
      legendOf(table).forEach(({ metric, title }) => legend.set(metric, title));
    }
    parts.push("");
  }
  if (best) {
    parts.push("*  best mean of the edited models on the same cases, whether or not its interval lies apart");
  }
  const longest = Math.max(0, ...[...legend.keys()].map((name) => name.length));
  for (const [metric, title] of legend) parts.push(`${metric.padEnd(longest)}  ${title}`);
  return [...parts, ...group.notes.map((note) => `note: ${note}`)].join("\n");
}

/** A table, cut into several where it is too wide; the labels are repeated. */
function columnsThatFit({ headings, rows }: Table, width: number): string[] {
  const labels = rows.map(({ label }) => label);
  const columns = headings.map((head, i) => [
    head,
    ...rows.map(({ cells }) => cells[i].text + (cells[i].best ? " *" : "  ")),
  ]);
  const first = Math.max(...labels.map(size));
  const out: string[] = [];
  for (let at = 0; at < columns.length;) {
    let end = at + 1, used = first + columnWidth(columns[at]) + 2;
    while (end < columns.length && used + columnWidth(columns[end]) + 2 <= width) {
      used += columnWidth(columns[end++]) + 2;
    }
    if (at > 0) out.push("");
    out.push(...layOut(["", ...labels], columns.slice(at, end)));
    at = end;
  }
  return out;
}

/** Numbers to the right; the head is underlined. */
function layOut(labels: readonly string[], columns: readonly string[][]): string[] {
  const first = Math.max(...labels.map(size));
  const lines = labels.map((label, row) => {
    const cells = columns.map((column) => {
      const text = row === 0 ? `${column[0]}  ` : column[row];
      return " ".repeat(columnWidth(column) - size(text)) + text;
    });
    return [label + " ".repeat(first - size(label)), ...cells].join("  ").trimEnd();
  });
  const rule = ["─".repeat(first), ...columns.map((column) => "─".repeat(columnWidth(column)))].join("  ");
  return [lines[0], rule, ...lines.slice(1)];
}

function columnWidth(column: readonly string[]): number {
  return Math.max(size(column[0]) + 2, ...column.slice(1).map(size));
}

function size(text: string): number {
  return [...text].length;
}
