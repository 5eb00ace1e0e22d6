/**
 * Which metrics stand side by side. A family is one way of asking; numbers of two families never share a
 * column or a picture, for the same edit can score 99 in one and 60 in another (guide, section 2).
 */
import type { ProbeKind } from "../cases.ts";

/** A way of measuring. */
export interface Family {
  key: string;
  title: string;
  /** What its numbers say, a sentence. */
  note: string;
  /** A breakdown of another family, left out where space is short. */
  detail?: boolean;
}

/** Families in the order of the report; a metric belongs to the first whose pattern fits. */
const FAMILIES: readonly (Family & { pattern: RegExp })[] = [
  {
    key: "ranking",
    title: "Ranking",
    note:
      "Whether the wanted object is likelier than its rival; a model that would say neither can score 100 %.",
    pattern: /^(ES|PS|NS|Score)$/,
  },
  {
    key: "magnitude",
    title: "Ranking: magnitude",
    note: "How much likelier, as a difference of probabilities.",
    pattern: /^(EM|PM|NM)$/,
  },
  {
    key: "generation",
    title: "Generation",
    note: "What the model says when it may speak: greedy text up to its natural stop.",
    pattern: /^gen\./,
  },
  {
    key: "tf.seq",
    title: "Teacher forcing: whole answers",
    note: "Whether every token of the answer is the likeliest one, given the answer so far.",
    pattern: /^tf\.seq\./,
  },
  {
    key: "tf.token",
    title: "Teacher forcing: tokens",
    note: "Share of the answer's tokens that are the likeliest ones, given the answer so far.",
    pattern: /^tf\.token\./,
  },
  {
    key: "easyedit",
    title: "EasyEdit",
    note: "Shares of tokens under teacher forcing as EasyEdit takes them, with partial credit.",
    pattern: /^easyedit\.(reliability|generality|locality|fluency)$/,
  },
  {
    key: "portability",
    title: "Portability",
    note: "EasyEdit's share of tokens at prompts whose answers follow from the edit, by sub-type.",
    pattern: /^easyedit\.portability/,
  },
  { key: "survey", title: "Survey", note: "The survey's indicators on whole answers.", pattern: /^survey\./ },
  {
    key: "zsre",
    title: "zsRE (ROME)",
    note: "Shares of tokens against the dataset's answer.",
    pattern: /^zsre\./,
  },
  {
    key: "mend",
    title: "zsRE (MEND)",
    note: "Whole answers; drawdown is a loss of accuracy.",
    pattern: /^mend\./,
  },
  {
    key: "ripple",
    title: "RippleEdits",
    note: "Passed tests of those that could be executed.",
    pattern: /^ripple\./,
  },
  { key: "mquake", title: "MQuAKE", note: "Multi-hop questions over edited facts.", pattern: /^mquake\./ },
  {
    key: "text",
    title: "Sampled text",
    note: "How varied sampled texts are, and how close to reference texts.",
    pattern: /^(fluency|consistency|essence)/,
  },
  {
    key: "drift",
    title: "Drift",
    note: "The model elsewhere: what an edit did to prompts and texts that have nothing to do with it.",
    pattern: /^drift\./,
  },
  {
    key: "rank",
    title: "Ranking by kind of probe",
    note: "Ranking success of every kind of probe that has a rival.",
    pattern: /^rank\.(?!joint\.)/,
    detail: true,
  },
  {
    key: "rank.joint",
    title: "Ranking by joint probability",
    note: "Ranking success without normalisation by length.",
    pattern: /^rank\.joint\./,
    detail: true,
  },
  {
    key: "locality",
    title: "Locality by sub-type",
    note: "EasyEdit's share of places whose likeliest token stays the same.",
    pattern: /^easyedit\.locality\./,
    detail: true,
  },
  { key: "other", title: "Other", note: "Metrics of other versions.", pattern: /^/, detail: true },
];

/** The family of a metric. */
export function familyOf(metric: string): Family {
  return FAMILIES.find(({ pattern }) => pattern.test(metric))!;
}

/** Metric names by family, in the report's order; what only repeats another metric is left out. */
export function byFamily(names: Iterable<string>): { family: Family; metrics: string[] }[] {
  const all = new Set(names);
  const kept = [...all].filter((name) => !(name in REPEATS && all.has(REPEATS[name])));
  return FAMILIES.flatMap((family) => {
    const metrics = kept.filter((name) => familyOf(name) === family).sort(inFamily);
    return metrics.length ? [{ family, metrics }] : [];
  });
}

/** The same numbers under two names. */
const REPEATS: Record<string, string> = {
  "rank.rewrite": "ES",
  "rank.paraphrase": "PS",
  "rank.neighbour": "NS",
};

const KINDS: readonly ProbeKind[] = [
  "rewrite",
  "paraphrase",
  "neighbour",
  "distract",
  "attribute",
  "alias",
  "reasoning",
  "logic",
  "relation",
  "forget",
  "unrelated",
  "multi-hop",
  "single-hop",
];

/** Customary order of the parts of a metric's name. */
const ORDER: readonly string[] = [
  ..."ES PS NS Score EM PM NM".split(" "),
  ..."prefix exact contains reliability generality locality portability fluency consistency".split(" "),
  ..."efficacy specificity edit_success drawdown edited multihop editwise instance".split(" "),
  ...KINDS,
];

/** Compares names of one family. */
function inFamily(a: string, b: string): number {
  const left = a.split("."), right = b.split(".");
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const d = rank(left[i]) - rank(right[i]);
    if (d) return d;
    if (left[i] !== right[i]) return (left[i] ?? "") < (right[i] ?? "") ? -1 : 1;
  }
  return 0;
}

function rank(part: string | undefined): number {
  if (part === undefined) return -1;
  const at = ORDER.indexOf(part);
  return at < 0 ? ORDER.length : at;
}
