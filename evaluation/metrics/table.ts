/**
 * What every metric is called, means and misses, and which published numbers it may stand beside. The sections
 * of docs/evaluation.md are made from this table.
 */
import { DRIFT_METRICS } from "./drift_table.ts";
import type { MetricInfo } from "./info.ts";

const MENG = "Meng et al. 2022 (ROME), section 3.3";
const MIRAGE = "Yang et al. 2025 (The Mirage of Model Editing)";
const KNOWEDIT = "Wang et al. 2024 (EasyEdit); Zhang et al. 2024 (KnowEdit)";
const SURVEY = "Yao et al. 2023, section 2";
const COHEN = "Cohen et al. 2024 (RippleEdits); edenbiran/RippleEdits, testrunner.py";
const ZHONG = "Zhong et al. 2023 (MQuAKE), evaluation metrics";
const PERCENT = { unit: "%", scale: 100, better: "higher" } as const;
const COUNTERFACT = "CounterFact tables of ROME, MEMIT and their successors";
const EASYEDIT_TABLES =
  "EasyEdit, KnowEdit and most papers since 2023, where they score with teacher forcing";
const NOT_PUBLISHED =
  "none: greedy texts with a natural stop here, examples in the prompt or fixed lengths there";

/** All metrics, in the order of reports. */
export const METRICS: readonly MetricInfo[] = [
  {
    name: "Score",
    title: "Score",
    ...PERCENT,
    formula: "harmonic mean of mean ES, mean PS and mean NS; of a run, not of a case",
    misses: "fluency, consistency, and whether anything is said at all",
    source: MENG,
    comparable: COUNTERFACT,
  },
  ...pair("E", "efficacy", "the rewrite prompt", "P(new) > P(true)", "P(new) − P(true)"),
  ...pair("P", "paraphrase", "paraphrase prompts", "P(new) > P(true)", "P(new) − P(true)"),
  ...pair("N", "neighbourhood", "neighbourhood prompts", "P(true) > P(new)", "P(true) − P(new)"),
  {
    name: "rank.joint.<kind>",
    title: "answer beats rival, joint probability, <kind>",
    ...PERCENT,
    formula: "share of probes where the product of the answer's token probabilities is above the rival's",
    misses: "what rank.<kind> misses; it favours the shorter of the two",
    source: "Meng et al. 2022 without the length normalisation",
    comparable: "papers that compare sequence probabilities; equal to rank.<kind> for answers of one token",
  },
  {
    name: "rank.<kind>",
    title: "answer beats rival, <kind>",
    ...PERCENT,
    formula:
      "share of probes with P(answer) > P(rival), P = exp(mean log-probability of the tokens), strictly",
    misses: "whether the model would say either of them",
    source: MENG,
    comparable:
      "ES, PS, NS by another name; `rank.distract` is NS+ of CounterFact+ (Hoelscher-Obermaier et al. 2023)",
  },
  {
    name: "tf.token.<kind>",
    title: "tokens right under teacher forcing, <kind>",
    ...PERCENT,
    formula: "mean over probes of the share of answer tokens that are the likeliest at their place",
    misses: "that the true answer so far was put into the model's mouth, and where it would have stopped",
    source: MIRAGE,
    comparable: '"accuracy" of EasyEdit and ROME\'s zsRE tables, if of the same kind of prompt',
  },
  {
    name: "tf.seq.<kind>",
    title: "answers right under teacher forcing, <kind>",
    ...PERCENT,
    formula: "share of probes whose answer tokens are all the likeliest at their place",
    misses: "what the model says after the answer",
    source: "Mitchell et al. 2022 (MEND), section 2; kmeng01/memit, summarize.py (`*_acc`)",
    comparable: "sequence-level accuracy; MEMIT's rewrite, paraphrase and neighbourhood accuracies",
  },
  {
    name: "gen.prefix.<kind>",
    title: "text starts with the answer, <kind>",
    ...PERCENT,
    formula: "share of greedy texts that start with the first answer, both normalised, at a word's end",
    misses: "what follows, which may take it back; answers by another name",
    source: "after " + MIRAGE,
    comparable: "none: stands between exact match and the study's judge",
  },
  {
    name: "gen.exact.<kind>",
    title: "text is the answer, <kind>",
    ...PERCENT,
    formula:
      "share of greedy texts, up to the first full stop, line break or 50 tokens, equal to the first answer",
    misses: "right answers that are longer or worded otherwise",
    source: MIRAGE + "; zjunlp/EasyEdit, exact_match_score",
    comparable: "exact match of real-world evaluation, with the prompt alone; below the judge's numbers",
  },
  {
    name: "gen.contains.<kind>",
    title: "text has the answer, <kind>",
    ...PERCENT,
    formula: "share of greedy texts that have each answer, or an alias of it, as a substring, normalised",
    misses: '"Parisian", "not Paris", lists of guesses: it accepts too much',
    source: "after " + MIRAGE,
    comparable: "substring scores only; above exact match and above a judge",
  },
  {
    name: "easyedit.reliability",
    title: "reliability (EasyEdit)",
    ...PERCENT,
    formula: "share of target tokens that are the likeliest at their place, edit prompt",
    misses: "half a name counts half; the answer so far is given",
    source: KNOWEDIT,
    comparable: EASYEDIT_TABLES,
  },
  {
    name: "easyedit.generality",
    title: "generality (EasyEdit)",
    ...PERCENT,
    formula: "share of target tokens that are the likeliest at their place, mean over rephrasings",
    misses: "as reliability; one rephrasing a record in most files",
    source: KNOWEDIT,
    comparable: EASYEDIT_TABLES,
  },
  {
    name: "easyedit.locality",
    title: "locality (EasyEdit)",
    ...PERCENT,
    formula: "mean over the case's groups of easyedit.locality.<group>",
    misses: "whether what stayed was right; changes that do not reach the likeliest token",
    source: KNOWEDIT,
    comparable: EASYEDIT_TABLES + "; not with NS or zsRE specificity",
  },
  {
    name: "easyedit.locality.<group>",
    title: "locality, <group>",
    ...PERCENT,
    formula: "share of the answer's places where the likeliest token is the same before and after",
    misses: "whether what stayed was right",
    source: KNOWEDIT,
    comparable: "the package's summary of that sub-type",
  },
  {
    name: "easyedit.portability",
    title: "portability (EasyEdit)",
    ...PERCENT,
    formula: "mean over the case's groups of easyedit.portability.<group>",
    misses: "answers by another alias than the first",
    source: KNOWEDIT,
    comparable: EASYEDIT_TABLES,
  },
  {
    name: "easyedit.portability.<group>",
    title: "portability, <group>",
    ...PERCENT,
    formula: "share of answer tokens that are the likeliest at their place, mean over the group's probes",
    misses: "answers by another alias than the first; most answer tokens are given",
    source: KNOWEDIT,
    comparable: "the package's summary of that sub-type",
  },
  survey("reliability", "1{f'(x) = answer} at the edit prompt"),
  survey("generality", "1{f'(x) = answer} over rephrasings"),
  survey(
    "locality",
    "1{f'(x) = f(x)} over prompts that should not change, at the places of the dataset's answer",
  ),
  survey("portability", "1{f'(x) = answer} over prompts that follow from the edit"),
  zsre("efficacy", "the edit question", "higher"),
  zsre("paraphrase", "rephrased questions", "higher"),
  zsre("specificity", "unrelated questions, against the dataset's answer", "closer to before"),
  {
    name: "mend.edit_success",
    title: "edit success (MEND)",
    ...PERCENT,
    formula: "share of the edit prompt and its rephrasings whose answer is right in every token",
    misses: "which of the two wordings failed",
    source: "Mitchell et al. 2022 (MEND), section 2",
    comparable: "MEND and SERAC on zsRE with `alt` as the target; their code scores rephrasings alone",
  },
  {
    name: "mend.drawdown",
    title: "drawdown (MEND)",
    unit: "%",
    scale: 100,
    better: "lower",
    formula: "share of unrelated questions answered right in every token before, minus after",
    misses: "changes of answers that were wrong before; losses and gains cancel",
    source: "Mitchell et al. 2022 (MEND), section 2",
    comparable: "MEND and SERAC accuracy drawdown, not their perplexity drawdown",
  },
  {
    name: "ripple.edited",
    title: "edited fact recalled (RippleEdits)",
    ...PERCENT,
    formula: "1 if the greedy text at the edit prompt has the target",
    misses: "it says on what share of cases the criteria speak",
    source: COHEN,
    comparable: NOT_PUBLISHED,
  },
  {
    name: "ripple.executed.<criterion>",
    title: "tests executed, <criterion>",
    ...PERCENT,
    formula: "tests whose conditions hold on the unedited model / all tests",
    misses: "nothing: without it ripple.<criterion> means little",
    source: COHEN,
    comparable: NOT_PUBLISHED,
  },
  {
    name: "ripple.<criterion>",
    title: "tests passed, <criterion>",
    ...PERCENT,
    formula: "passed / executed tests, on cases whose edited fact is recalled",
    misses: "cases whose edit failed, and tests whose conditions the model does not know",
    source: COHEN,
    comparable: NOT_PUBLISHED,
  },
  {
    name: "mquake.multihop",
    title: "multi-hop accuracy (MQuAKE)",
    ...PERCENT,
    formula: "1 if any of the case's multi-hop questions is answered with the new answer or an alias",
    misses: "right answers for wrong reasons; two of three questions may fail",
    source: ZHONG,
    comparable: "none: published numbers put examples, with or without reasoning, before the question",
  },
  {
    name: "mquake.editwise",
    title: "edit-wise success (MQuAKE)",
    ...PERCENT,
    formula: "share of the case's edited facts that the greedy text at their prompt has",
    misses: "the facts of the chain that were not edited",
    source: ZHONG,
    comparable: "MQuAKE's edit-wise column, with care: the text here ends at its natural stop",
  },
  {
    name: "mquake.instance",
    title: "instance-wise success (MQuAKE)",
    ...PERCENT,
    formula: "1 if all facts of the case's new chain are recalled",
    misses: "how many were not",
    source: ZHONG,
    comparable: "none: published numbers put examples of the relation before unedited facts",
  },
  {
    name: "fluency",
    title: "fluency (n-gram entropy)",
    unit: "bits×100",
    scale: 100,
    better: "closer to before",
    formula: "mean over sampled texts of H2/3 + 2·H3/3, H = entropy of bigrams and trigrams of words",
    misses: "sense and grammar: random words score highest; the prompt counts",
    source: MENG + ", after Zhang et al. 2018",
    comparable: "GE of ROME and MEMIT, fluency of EasyEdit, at 100 tokens a text and top-5 sampling",
  },
  {
    name: "consistency",
    title: "consistency (reference score)",
    unit: "cosine×100",
    scale: 100,
    better: "higher",
    formula: "cosine of TF-IDF vectors of all generated texts and of all references on the new object",
    misses: "order of words and who did what",
    source: MENG,
    comparable: "RS of ROME and MEMIT only with their references and their idf table",
  },
  ...DRIFT_METRICS,
];

/** Success and magnitude of one sort of prompt. */
function pair(
  letter: string,
  word: string,
  prompts: string,
  success: string,
  margin: string,
): MetricInfo[] {
  const common = { ...PERCENT, source: MENG, comparable: COUNTERFACT };
  return [{
    ...common,
    name: `${letter}S`,
    title: `${word} success (${letter}S)`,
    formula: `share of ${prompts} with ${success}, P = exp(mean log-probability of the tokens), strictly`,
    misses: "whether the model would say either of them",
  }, {
    ...common,
    name: `${letter}M`,
    title: `${word} magnitude (${letter}M)`,
    formula: `mean of ${margin} over ${prompts}; not an exact match`,
    misses: "rank: a wide margin on few prompts hides narrow losses on many",
  }];
}

function survey(property: string, formula: string): MetricInfo {
  return {
    ...PERCENT,
    name: `survey.${property}`,
    title: `${property} (survey)`,
    formula: `mean of ${formula}`,
    misses: property === "locality"
      ? "whether what stayed was right"
      : "what the model says after the answer",
    source: SURVEY,
    comparable: "the survey's definition; not its tables, which are token shares (easyedit.*)",
  };
}

function zsre(part: string, prompts: string, better: MetricInfo["better"]): MetricInfo {
  return {
    ...PERCENT,
    better,
    name: `zsre.${part}`,
    title: `zsRE ${part} (ROME)`,
    formula: `share of right tokens over all answers together, ${prompts}`,
    misses: part === "specificity"
      ? "changes of wrong answers; an unedited GPT-J is in the twenties"
      : "that the answer so far is given; the unedited model is right now and then",
    source: "Meng et al. 2022 (ROME), section 3.2; Meng et al. 2023 (MEMIT), section 5.2",
    comparable: "zsRE tables of ROME and MEMIT, whose target is the dataset's right answer",
  };
}
