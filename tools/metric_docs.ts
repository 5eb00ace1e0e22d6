/**
 * The part of docs/evaluation.md that says what each metric is, made from `METRICS`.
 *
 * ```sh
 * deno run -A tools/metric_docs.ts   # writes it; a test says when it is out of date
 * ```
 */
import { type MetricInfo, METRICS } from "../evaluation/metrics/index.ts";

const DOC = new URL("../docs/evaluation.md", import.meta.url);
const START = "<!-- deno-fmt-ignore-start -->\n";
const MADE = "<!-- Made by `deno run -A tools/metric_docs.ts` from METRICS; do not edit. -->";
const END = "<!-- deno-fmt-ignore-end -->\n";

/** Families in the order of the document: a heading, and the names that belong under it. */
const FAMILIES: [string, RegExp][] = [
  ["Ranking: is the answer likelier than its rival?", /^(Score|[EPN][SM]$|rank\.)/],
  ["Matching under teacher forcing", /^tf\./],
  ["What the model says", /^gen\./],
  ["EasyEdit", /^easyedit\./],
  ["The survey's definitions", /^survey\./],
  ["zsRE", /^(zsre|mend)\./],
  ["Tests of several questions", /^(ripple|mquake)\./],
  ["Sampled texts", /^(fluency|consistency)$/],
  ["The model elsewhere", /^drift\./],
];

/** The document with its made part made anew. @throws {Error} when the part or a metric's family is missing */
export function withMetrics(document: string): string {
  const start = document.indexOf(START), end = document.indexOf(END);
  if (start < 0 || end < start) throw new Error("docs/evaluation.md has lost the marks of its made part");
  const left = METRICS.filter(({ name }) => !FAMILIES.some(([, names]) => names.test(name)));
  if (left.length) throw new Error(`${left[0].name} belongs to no family of docs/evaluation.md`);
  const parts = FAMILIES.map(([title, names]) =>
    [`### ${title}\n`, ...METRICS.filter(({ name }) => names.test(name)).map(entry)].join("\n")
  );
  return `${document.slice(0, start + START.length)}\n${MADE}\n\n${parts.join("\n")}\n${document.slice(end)}`;
}

function entry({ name, unit, better, formula, misses, source, comparable }: MetricInfo): string {
  return `**\`${name}\`** (${unit ? `${unit}, ` : ""}better: ${better})\n\n` +
    `- Formula: ${escape(formula)} (${escape(source)}).\n` +
    `- Misses: ${escape(misses)}.\n` +
    `- Comparable with: ${escape(comparable)}.\n`;
}

/** Names in angle brackets are not HTML. */
function escape(text: string): string {
  return text.replace(/<\w+>/g, (slot) => `\\${slot}`);
}

if (import.meta.main) {
  await Deno.writeTextFile(DOC, withMetrics(await Deno.readTextFile(DOC)));
}
