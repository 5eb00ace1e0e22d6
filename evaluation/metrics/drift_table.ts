/** What the measures of the model elsewhere are called, mean and miss (evaluation/drift.ts takes them). */
import type { MetricInfo } from "./info.ts";

const OURS = "none: the neutral texts are ours; compare runs of emend with each other";

/** Drift, in the order of reports. */
export const DRIFT_METRICS: readonly MetricInfo[] = [
  {
    name: "drift.kl",
    title: "KL divergence from the unedited model after neutral prompts, mean",
    unit: "nats",
    scale: 1,
    better: "lower",
    formula: "mean over neutral prompts of KL(before‖after) of the next-token distributions",
    misses: "everything after the next token, and prompts near the edit",
    source: "ours, after the KL term of ROME's objective",
    comparable: OURS,
  },
  {
    name: "drift.kl_max",
    title: "the largest of these divergences",
    unit: "nats",
    scale: 1,
    better: "lower",
    formula: "largest KL(before‖after) over the neutral prompts",
    misses: "how many prompts moved",
    source: "as drift.kl",
    comparable: OURS,
  },
  {
    name: "drift.perplexity",
    title: "perplexity of neutral prose",
    unit: "",
    scale: 1,
    better: "closer to before",
    formula: "exp of the mean −log p of the prose's tokens, each passage read by itself",
    misses: "what changed, when one passage got easier and another harder",
    source: "after Yang et al. 2024 (The Butterfly Effect of Model Editing)",
    comparable: "changes of perplexity, not its value: that depends on the text",
  },
  {
    name: "drift.norm_growth",
    title: "largest growth of an edited weight's norm",
    unit: "%",
    scale: 100,
    better: "lower",
    formula: "largest ‖W + ΔW‖/‖W‖ − 1 of the edited weights, Frobenius",
    misses: "changes that turn the weight without growing it",
    source: "after Gupta et al. 2024 (Model Editing at Scale), who watch the norm along sequences",
    comparable: "growth of the edited layer's norm along sequential edits",
  },
  {
    name: "drift.repetition",
    title: "n-gram entropy of texts from neutral prompts; texts that repeat themselves have little",
    unit: "bits",
    scale: 1,
    better: "closer to before",
    formula: "weighted mean entropy (2/3, 4/3) of bigrams and trigrams of greedy texts, mean over prompts",
    misses: "sense: varied nonsense has a high entropy",
    source: "Meng et al. 2022 (ROME), section 3.3, on other prompts",
    comparable: "none: fluency is of sampled texts at the record's own prompts",
  },
];
