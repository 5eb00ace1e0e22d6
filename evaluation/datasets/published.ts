/** Which published metrics a dataset can give, and why not the others. */
import type { Dataset, EditCase, Probe } from "../cases.ts";
import type { Published } from "./layout.ts";

const PORTABLE = new Set(["alias", "reasoning", "logic"]);

/** Names as in `METRICS`, in the order of the report. */
export function publishedMetrics(
  cases: readonly EditCase[],
  { families = [], not = {} }: Published,
): Pick<Dataset, "gives" | "lacks"> {
  const probes = cases.flatMap((one) => one.probes);
  const some = (test: (probe: Probe) => boolean) => probes.some(test);
  const ranked = (kind: string) => some((probe) => probe.kind === kind && probe.rival !== undefined);
  const noRival = "no true answer is given for the edit to compete with";
  const rewrite = ranked("rewrite") ? undefined : noRival;
  const paraphrase = !some(({ kind }) => kind === "paraphrase")
    ? "it has no paraphrases"
    : ranked("paraphrase")
    ? undefined
    : noRival;
  const neighbour = ranked("neighbour")
    ? undefined
    : "it has no neighbours: prompts about other subjects with the same true object";
  const needs = (test: (probe: Probe) => boolean, why: string) => some(test) ? undefined : why;
  const rows: [metric: string, whyNot: string | undefined][] = [
    ["ES", rewrite],
    ["EM", rewrite],
    ["PS", paraphrase],
    ["PM", paraphrase],
    ["NS", neighbour],
    ["NM", neighbour],
    ["Score", rewrite ?? paraphrase ?? neighbour],
    ["fluency", undefined],
    ["consistency", needsReferences(cases)],
    ["easyedit.reliability", undefined],
    ["easyedit.generality", needs(({ kind }) => kind === "paraphrase", "it has no paraphrases")],
    ["easyedit.locality", needs(({ expect }) => expect === "unchanged", "it asks nothing that should stay")],
    [
      "easyedit.portability",
      needs(
        (p) => PORTABLE.has(p.kind) && p.expect !== "unchanged",
        "it asks nothing that follows from the edits",
      ),
    ],
    ...family("zsre", ["efficacy", "paraphrase", "specificity"], "its layout is not zsRE's"),
    ...family("mend", ["edit_success", "drawdown"], "its layout is not zsRE's"),
    ...family("mquake", ["multihop", "editwise", "instance"], "its layout is not MQuAKE's"),
    ...family("ripple", criteria(probes), "its layout is not RippleEdits'"),
  ];
  const gives: string[] = [], lacks: Dataset["lacks"] = [];
  for (const [metric, whyNot] of rows) {
    const why = not[metric] ?? not[metric.replace(/\..*/, ".*")] ?? whyNot;
    if (why === undefined) gives.push(metric);
    else lacks.push({ metric, why });
  }
  const named = new Set(rows.map(([metric]) => metric));
  const more = Object.entries(not).filter(([metric]) => !named.has(metric) && !metric.endsWith(".*"));
  return { gives, lacks: [...lacks, ...more.map(([metric, why]) => ({ metric, why }))] };

  function family(name: string, parts: string[], why: string): [string, string | undefined][] {
    if (!families.includes(name)) return [[`${name}.*`, why]];
    const unasked = name === "zsre" || name === "mend"
      ? needs(({ kind }) => kind === "unrelated", "it has no unrelated questions")
      : undefined;
    return unasked ? [[`${name}.*`, unasked]] : parts.map((part) => [`${name}.${part}`, undefined]);
  }
}

function needsReferences(cases: readonly EditCase[]): string | undefined {
  return cases.some(({ references }) => references?.length)
    ? undefined
    : "it has no texts about subjects that truly have the new object (attribute_snippets.json, 926 MB)";
}

function criteria(probes: readonly Probe[]): string[] {
  return [...new Set(probes.flatMap(({ test, group }) => test && group ? [group] : []))];
}
