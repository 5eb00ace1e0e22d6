/** What `emend stats` says when it is done: each layer's sample, and how far C⁻¹k turned as it grew. */
import type { LayerReport } from "./stats.ts";
import { seconds, table } from "./terminal.ts";

/** Prints a report for people. */
export function printStatistics(
  report: readonly LayerReport[],
  run: { made: readonly number[]; seconds?: number; tokens?: number },
): void {
  for (const r of report) {
    const what = run.made.includes(r.layer) ? ", made by an earlier run" : "";
    const from = r.imported ? `, imported from ${r.imported}` : "";
    console.log(`layer ${r.layer}: ${r.tokens} tokens of ${r.documents} documents${what}${from}`);
    console.log(`  ${r.written}`);
  }
  const rows = report.flatMap(({ layer, looks = [] }) =>
    looks.map(({ tokens, median, worst }) => [`${layer}`, `${tokens}`, degrees(median), degrees(worst)])
  );
  if (rows.length) {
    console.log("\nC⁻¹k of half of the sample against all of it, eight keys:");
    console.log(table([["layer", "tokens", "median angle", "largest"], ...rows]));
  } else if (!report.some((r) => r.imported)) {
    console.log(
      `\nC⁻¹k was not compared: that takes eight times the key's width, ${8 * report[0].width} tokens`,
    );
  }
  if (run.seconds && run.tokens) {
    console.log(`\ntime: ${seconds(run.seconds)}, ${(run.tokens / run.seconds).toFixed(0)} tokens/s`);
  }
}

function degrees(angle: number): string {
  return `${angle.toPrecision(3)}°`;
}
