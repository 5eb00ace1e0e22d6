/** What `emend eval` prints at its end; `emend report` has the whole story. */
import type { Statistic, Summary } from "../evaluation/records.ts";
import { seconds, table } from "./terminal.ts";

/** Metrics of the short table, in this order, where the run has them. */
const SHORT = [
  ["ES", "rewrite: new beats old"],
  ["PS", "paraphrase: new beats old"],
  ["NS", "neighbours: old beats new"],
  ["tf.token.rewrite", "rewrite tokens, teacher-forced"],
  ["tf.seq.rewrite", "rewrite whole, teacher-forced"],
  ["tf.seq.paraphrase", "paraphrase whole, teacher-forced"],
  ["gen.prefix.rewrite", "says it, in free text"],
  ["gen.prefix.paraphrase", "says it to a paraphrase"],
  ["easyedit.locality", "unrelated answers unchanged"],
  ["easyedit.portability", "what follows from it"],
] as const;

/** Prints the short table and where the rest is. */
export function printSummary(summary: Summary, out: string): void {
  const { config, metrics, score, cases } = summary;
  console.log(
    `${config.method} on ${config.model.name}, ${cases} of ${config.dataset.name} (${config.dataset.layout}), ` +
      `${config.protocol}${config.batch > 1 ? ` of ${config.batch}` : ""}, ${config.adapter}\n`,
  );
  const stages = [metrics.before, metrics.after, ...metrics.retained ? [metrics.retained] : []];
  const rows = SHORT.filter(([name]) => metrics.after[name])
    .map(([name, about]) => [name, ...stages.map((stage) => cell(stage[name])), about]);
  const scores = [score.before, score.after, ...metrics.retained ? [score.retained] : []];
  if (score.after !== undefined) {
    rows.unshift([
      "Score",
      ...scores.map((s) => s === undefined ? "–" : (100 * s).toFixed(1)),
      "harmonic mean of ES, PS, NS",
    ]);
  }
  const head = ["%", "before", "after", ...metrics.retained ? ["retained"] : [], "what it means"];
  console.log(table([head, ...rows]));
  const drift = summary.drift?.after;
  if (drift?.["drift.kl"]) {
    const was = summary.drift!.before["drift.perplexity"].mean;
    console.log(
      `\nelsewhere: KL ${drift["drift.kl"].mean.toExponential(1)} nats, perplexity ${was.toFixed(1)} → ` +
        `${drift["drift.perplexity"].mean.toFixed(1)} of a neutral text`,
    );
  }
  const t = summary.time_s;
  console.log(
    `time: ${seconds(t.edit.mean)} an edit, ${seconds(t.evaluate.mean)} reading it ` +
      `(${(100 * t.outside_editing).toFixed(0)} % outside editing), ${seconds(t.total)} in all` +
      (summary.restored === undefined
        ? ""
        : `; weights restored exactly: ${summary.restored ? "yes" : "NO"}`),
  );
  if (summary.not_made) {
    const { cases: lost, first } = summary.not_made;
    console.log(
      `note: ${lost} of ${cases} edits could not be made and count as unedited; the first: ${first}`,
    );
  }
  if (summary.cached_targets) {
    console.log(
      `note: ${summary.cached_targets} targets came from the cache, so the time an edit is not the method's`,
    );
  }
  console.log(`written: ${out}\nmore: deno run -A cli.ts report ${out} --out report.html`);
}

function cell(statistic: Statistic | undefined): string {
  if (!statistic) return "–";
  return `${(100 * statistic.mean).toFixed(1)} ± ${(100 * statistic.ci95).toFixed(1)}`;
}
