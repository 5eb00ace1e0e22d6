/**
 * What an evaluation run writes: readings of probes, one line a case in cases.jsonl, the run's config.json
 * and its summary.json. Lines come first and everything else is aggregated from them.
 */
import type { EditRequest } from "../editors/requests.ts";
import type { Probe } from "./cases.ts";

/** A continuation under teacher forcing. */
export interface Forced {
  text: string;
  /** Its token ids. */
  tokens: number[];
  /** Natural log-probability of each token given the prompt and the tokens before it. */
  logProbs: number[];
  /** The likeliest token at each of these places. */
  argmax: number[];
  /** What the ids of `tokens` and `argmax` stand for, for people. */
  pieces?: { tokens: string[]; argmax: string[] };
}

/** What one state of the model says to one probe. */
export interface Reading {
  /** The probe's first answer. */
  answer?: Forced;
  rival?: Forced;
  /** Greedy continuation up to its natural stop: full stop, line break, end of text, 50 tokens. */
  text?: string;
  /** Greedy continuations of the test's conditions, in order. */
  conditions?: string[];
}

/** What one state of the model says to a case. */
export interface Readings {
  /** One a probe, in the order of the case's probes. */
  probes: Reading[];
  /** Sampled texts, prompt included: one a `generation` probe, or one from the edit prompt. */
  texts?: string[];
}

/** Metric values of one case by name (see `METRICS`); what does not apply is absent. Shares are in [0, 1]. */
export type Metrics = Record<string, number>;

/** The parts of a case's work, in order; `retained` is the reading after the last edit of a sequential run. */
export const PHASES = ["before", "edit", "after", "elsewhere", "restore", "retained"] as const;
export type Phase = typeof PHASES[number];

/** What a phase took. */
export interface PhaseCost {
  /** Seconds a case. */
  time_s: number;
  /** The device's highest memory during the phase, weights included. */
  gpu_peak_bytes: number;
  /** The process's resident memory at its end. */
  host_bytes: number;
}

/** How the edit of a case went. */
export interface EditRecord {
  steps: number;
  /** Loss at the last step, summed over its terms; absent for methods without one. */
  loss?: number;
  warnings: string[];
  /** What the method says of the edit as a whole, on the first line of a group. */
  notes?: string[];
  /** ‖ΔW‖ and ‖ΔW‖/‖W‖ of every changed weight. */
  changes: { role: string; frobenius: number; relative: number }[];
  /** Why there is no edit, where making it failed; the readings after are then those of the weights before. */
  failed?: string;
  /** What the firewall did, when budgets were set: the share of the edit that it left, or why it left none. */
  firewall?: { scale: number; refused?: string };
  /** Targets that came from the cache: the time of this edit is then not the method's. */
  cached_targets?: number;
}

/** A line of cases.jsonl. */
export interface CaseLine {
  id: string;
  index: number;
  requests: EditRequest[];
  probes: Probe[];
  before: Readings;
  /** Right after the edit. */
  after: Readings;
  edit: EditRecord;
  metrics: { before: Metrics; after: Metrics };
  /** The model elsewhere: perplexity of neutral text, KL on neutral prompts, growth of norms, repetition. */
  drift?: { before: Metrics; after: Metrics };
  /** Whether the weights' fingerprint after undoing is that of the unedited model; single and batch only. */
  restored?: boolean;
  /** Seconds: `edit`, and all other phases together. */
  time_s: { edit: number; evaluate: number };
  memory: { gpu_peak_bytes: number; host_bytes: number };
  /** Time and memory phase by phase. */
  phases: Partial<Record<Phase, PhaseCost>>;
}

/** A line of retained.jsonl: a case of a sequential run after the last edit. */
export interface RetainedLine {
  id: string;
  index: number;
  readings: Readings;
  metrics: Metrics;
  time_s: { evaluate: number };
  phases: Partial<Record<Phase, PhaseCost>>;
}

export type Protocol = "single" | "batch" | "sequential" | "sequential-batch";

/** config.json: all that is needed to run it again. */
export interface RunConfig {
  format: "emend-run";
  format_version: 1;
  emend_version: string;
  model: { name: string; hash: string; type: string };
  method: string;
  hparams: Record<string, unknown>;
  /** Where the hyper-parameters come from, a sentence. */
  recipe: string;
  dataset: { name: string; layout: string; hash: string; cases: number };
  protocol: Protocol;
  /** Edits made together; 1 in single and sequential. */
  batch: number;
  /** Which readings were taken. */
  readings: string[];
  seed: number;
  /** The firewall's budgets, when set; `keep` lists prompts. */
  budgets?: { maxDrift?: number; maxNormGrowth?: number; keep?: string[] };
  /** Statistics of keys, where the method uses them. */
  statistics: { layer: number; tokens: number; corpus: string }[];
  adapter: string;
  /** Positions in the dataset of all cases of the run, all shards together. */
  indices: number[];
  /** This machine's share; absent in a whole run. */
  shard?: { index: number; of: number };
}

/** Mean over cases with its spread. */
export interface Statistic {
  mean: number;
  /** Standard deviation (n − 1). */
  sd: number;
  /** Half the 95 % interval of the mean: 1.96·sd/√n. */
  ci95: number;
  /** Cases that have it. */
  n: number;
}

export type Statistics = Record<string, Statistic>;

/** summary.json. */
export interface Summary {
  format: "emend-summary";
  format_version: 1;
  config: RunConfig;
  /** Cases evaluated. */
  cases: number;
  /** `retained` in sequential protocols: every case after the last edit. */
  metrics: { before: Statistics; after: Statistics; retained?: Statistics };
  /** Harmonic mean of mean ES, PS and NS, where all three are there. */
  score: { before?: number; after?: number; retained?: number };
  drift?: { before: Statistics; after: Statistics };
  /** Per case in the order of the edits: the rewrite's success right after, and after the last edit. */
  forgetting?: { index: number; immediate: number; retained: number }[];
  /** Every restoration was exact; single and batch only. */
  restored?: boolean;
  time_s: {
    total: number;
    edit: Statistic;
    evaluate: Statistic;
    /** Share of the time not spent in editing, loading left out. */
    outside_editing: number;
  };
  memory: { gpu_peak_bytes: number; host_peak_bytes: number };
  /** Mean seconds a case and highest memory of every phase that the run had. */
  phases: Partial<Record<Phase, PhaseCost>>;
  /** Edits with targets from the cache, when there are any. */
  cached_targets?: number;
  /** Cases whose edit could not be made, when there are any: their readings are the unedited model's. */
  not_made?: { cases: number; first: string };
}
