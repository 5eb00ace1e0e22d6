/** `emend report`: tables and pictures of any number of run folders; shards of one run become one. */
import { Command } from "npm:commander@15.1.0";
import { checkWritable, writeFileAtomic } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import { csvCases, csvReport, isCsvReport } from "../evaluation/report/csv.ts";
import { type Group, groupRuns } from "../evaluation/report/groups.ts";
import { htmlReport, isHtmlReport } from "../evaluation/report/html.ts";
import { loadRuns } from "../evaluation/report/load.ts";
import { isMarkdownReport, markdownReport } from "../evaluation/report/markdown.ts";
import { textReport } from "../evaluation/report/text.ts";
import { printJson } from "./terminal.ts";

interface Flags {
  out?: string;
  cases?: boolean;
  partial?: boolean;
  json?: boolean;
}

/** A kind of file by its ending. */
interface Format {
  render(groups: readonly Group[], flags: Flags): string | Promise<string>;
  /** Whether a file that is there already is one of ours and may be replaced. */
  isOurs(text: string): boolean;
}

const FORMATS: Record<string, Format> = {
  md: { render: markdownReport, isOurs: isMarkdownReport },
  html: { render: htmlReport, isOurs: isHtmlReport },
  csv: { render: (groups, { cases }) => cases ? csvCases(groups) : csvReport(groups), isOurs: isCsvReport },
};

const EXAMPLE = `
Runs of one protocol, dataset and model stand in one table; nothing is averaged over runs. A folder of shards
stands for all of them.

Examples:
  deno run -A cli.ts report runs/rome runs/memit
  deno run -A cli.ts report runs/* --out report.html
  deno run -A cli.ts report runs/rome --out cases.csv --cases`;

export function reportCommand(): Command {
  return new Command("report")
    .description("Tables and pictures of evaluation runs")
    .argument("<run...>", "run folders, written by eval")
    .option("--out <file>", "FILE.html (one page with pictures and every case), FILE.md or FILE.csv")
    .option("--cases", "with FILE.csv: a row for each case and metric")
    .option("--partial", "show runs that have not come to their end")
    .option("--json", "print the runs' summaries, shards merged, as one JSON object")
    .addHelpText("after", EXAMPLE)
    .action((paths: string[], flags: Flags) => runReport(paths, flags));
}

async function runReport(paths: string[], flags: Flags): Promise<void> {
  const { out } = flags;
  const format = out === undefined ? undefined : formatOf(out);
  if (flags.cases && format !== FORMATS.csv) throw new InputError("--cases wants --out FILE.csv");
  if (out !== undefined) await checkReplaceable(out, format!);
  const groups = groupRuns(await loadRuns(paths, flags));
  if (out !== undefined) await writeFileAtomic(out, await format!.render(groups, flags));
  if (flags.json) {
    printJson({
      runs: groups.flatMap(({ runs }) =>
        runs.map(({ label, paths, missing, summary }) => ({ label, paths, missing, summary }))
      ),
      written: out === undefined ? [] : [out],
    });
  } else if (out === undefined) console.log(textReport(groups, width()).trimEnd());
  else console.log(`written: ${out}`);
}

function formatOf(path: string): Format {
  const ending = path.match(/\.(\w+)$/)?.[1].toLowerCase() ?? "";
  if (Object.hasOwn(FORMATS, ending)) return FORMATS[ending];
  throw new InputError(`A report is an .html, .md or .csv file, not ${path}`);
}

/** @throws {InputError} before any work, when the file cannot be written or is something else */
async function checkReplaceable(path: string, { isOurs }: Format): Promise<void> {
  await checkWritable(path);
  const text = await Deno.readTextFile(path).catch(() => undefined);
  if (text && !isOurs(text)) {
    throw new InputError(`Cannot replace ${path}: it is not a report`, { hint: "Name a new file" });
  }
}

function width(): number {
  try {
    return Math.max(60, Deno.consoleSize().columns);
  } catch {
    return 110;
  }
}
