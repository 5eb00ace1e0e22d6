/** The report in Markdown: what was run, then a table for each family of metrics. */
import { factsOf, hparamsOf } from "./facts.ts";
import type { Block, Group, LabelledRun } from "./groups.ts";
import { legendOf, marksBest, type Table, tablesOf } from "./tables.ts";

const MARK = "<!-- emend report -->";

/** Whether a file's beginning is that of such a report. */
export function isMarkdownReport(text: string): boolean {
  return text.startsWith(MARK);
}

/** All groups, one after the other; nothing is averaged over runs. */
export function markdownReport(groups: readonly Group[]): string {
  const parts = [MARK, "", "# Knowledge-editing report", ""];
  parts.push("Values are means over cases ± half the 95 % interval of the mean (1.96·sd/√n).");
  for (const group of groups) {
    parts.push("", `## ${escape(group.title)}`, "", ...group.notes.map((note) => `> ${escape(note)}\n`));
    for (const block of group.blocks) parts.push(...blockParts(block));
    parts.push("### What was run", ...group.runs.flatMap(runParts));
  }
  return parts.join("\n").replace(/\n{3,}/g, "\n\n").trimEnd() + "\n";
}

function blockParts(block: Block): string[] {
  const tables = tablesOf(block, { detail: true });
  return [
    `### ${block.cases} case${block.cases === 1 ? "" : "s"}`,
    "",
    ...(marksBest(tables)
      ? [
        "Bold: the best mean of the edited models on the same cases, whether or not its interval lies apart.",
        "",
      ]
      : []),
    ...tables.flatMap(tableParts),
  ];
}

function tableParts(table: Table): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const legend = legendOf(table).filter(({ metric, title }) => metric !== title);
  return [
    `**${escape(table.title)}.** ${escape(table.family.note)}`,
    "",
    line(["", ...table.headings.map(escape)]),
    line(["---", ...table.headings.map(() => "---:")]),
    ...table.rows.map(({ label, cells }) =>
      line([escape(label), ...cells.map(({ text, best }) => best ? `**${text}**` : text)])
    ),
    "",
    ...legend.map(({ metric, title }) => `- ${escape(metric)}: ${escape(title)}`),
    "",
  ];
}

function runParts(run: LabelledRun): string[] {
  const item = ({ name, value }: { name: string; value: string }) => `- ${escape(name)}: ${escape(value)}`;
  return [
    "",
    `#### ${escape(run.label)}`,
    "",
    ...factsOf(run).map(item),
    `- Hyper-parameters: ${hparamsOf(run).map(({ name, value }) => escape(`${name} = ${value}`)).join(", ")}`,
  ];
}

/** Text that must not act as Markdown or HTML, on one line. */
function escape(text: string): string {
  return text.replace(/[\r\n]+/g, " ").replace(/[\\`*_{}[\]<>#|~]/g, (c) => `\\${c}`).replaceAll(
    "&",
    "&amp;",
  );
}
