/** `emend eval --lint`: what a dataset holds, and what is wrong with its edits. */
import type { Dataset, EditCase } from "../evaluation/cases.ts";
import { describeDataset } from "../evaluation/datasets/describe.ts";
import { placesIn } from "../evaluation/datasets/read.ts";
import { type Finding, lintRequests } from "../evaluation/lint.ts";
import { greedyTexts } from "../evaluation/readings.ts";
import { fill } from "../editors/requests.ts";
import { openSession } from "./model.ts";
import { printJson } from "./terminal.ts";

/** A finding with its place in the file: line, record from 1, and in words. */
type Placed = Finding & { line: number; record: number; where: string };

/** Findings shown of each severity; `--json` has all. */
const SHOWN = 20;

/**
 * Prints the findings; with a model also where a target is what it already says. The exit code is 1 when
 * there is an error among them.
 */
export async function lintDataset(
  dataset: Dataset,
  cases: readonly EditCase[],
  { model, json }: { model?: string; json?: boolean },
): Promise<void> {
  const where = placesIn(cases);
  const requests = cases.flatMap(({ requests, line, index }) =>
    requests.map((request) => ({
      request,
      place: { line, record: index + 1, where: where([{ line, index }]) },
    }))
  );
  let current: string[] | undefined;
  if (model !== undefined) {
    using session = await openSession(model);
    const prompts = requests.map(({ request: { prompt, subject } }) => fill(prompt, subject).text);
    const texts = await greedyTexts(session.model, prompts);
    current = prompts.map((prompt) => texts.get(prompt)!);
  }
  const findings = lintRequests(requests.map(({ request }) => request), { current })
    .map((finding): Placed => ({ ...finding, ...requests[finding.index].place }));
  const errors = findings.filter(({ severity }) => severity === "error").length;
  if (json) {
    const { cases: _, ...facts } = dataset;
    printJson({ dataset: { ...facts, cases: dataset.cases.length }, findings });
  } else {
    console.log(describeDataset(dataset).join("\n"));
    for (const severity of ["error", "warning", "hint"] as const) {
      const some = findings.filter((finding) => finding.severity === severity);
      for (const { where, message } of some.slice(0, SHOWN)) console.log(`${severity}: ${where}: ${message}`);
      if (some.length > SHOWN) console.log(`${severity}: and ${some.length - SHOWN} more (--json has all)`);
    }
    if (findings.length === 0) console.log("nothing to complain about");
  }
  if (errors > 0) Deno.exitCode = 1;
}
