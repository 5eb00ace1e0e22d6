/**
 * The one internal record that every dataset is read into: what to edit, and the probes that say what the
 * edit did. An answer and its rival are the two continuations whose probabilities a ranking metric compares;
 * which of them should win is a matter of the probe, so ranking success is the same test everywhere.
 */
import type { EditRequest } from "../editors/requests.ts";

/** What a probe asks about. */
export type ProbeKind =
  /** The edit prompt itself. */
  | "rewrite"
  /** The same fact, otherwise said. */
  | "paraphrase"
  /** A prompt to write a text from: fluency and consistency. */
  | "generation"
  /** Another subject with the same true object. */
  | "neighbour"
  /** Another subject that truly has the new object. */
  | "attribute"
  /** The subject by another name. */
  | "alias"
  /** A fact one or more hops on, composed with the edited one. */
  | "reasoning"
  /** A consequence by symmetry, inversion or transitivity. */
  | "logic"
  /** Another relation of the same subject. */
  | "relation"
  /** Other objects of a one-to-many relation. */
  | "forget"
  /** A neighbour with the edited sentence put before it. */
  | "distract"
  /** A question about something else altogether. */
  | "unrelated"
  /** A question over a chain of facts (MQuAKE). */
  | "multi-hop"
  /** One link of such a chain. */
  | "single-hop";

/** One question to the model. */
export interface Probe {
  kind: ProbeKind;
  /** Filled in, without a space at its end. */
  prompt: string;
  /** The dataset's own name for this group: "Subject_Aliasing". */
  group?: string;
  /**
   * All of the outer list, any of each inner one (an answer with its aliases). The first of the first is the
   * one that is teacher-forced. Empty for `generation`.
   */
  answers: string[][];
  /**
   * `new`: the edit's target. `answer`: the given answers, which follow from the edit. `unchanged`: whatever
   * the model said before; the given answer only says where to look.
   */
  expect: "new" | "answer" | "unchanged";
  /** The continuation that competes with the first answer in ranking metrics. */
  rival?: string;
  /** The test that it belongs to, where several questions make one (RippleEdits, MQuAKE). */
  test?: ProbeTest;
}

/** Several probes that pass or fail together. */
export interface ProbeTest {
  /** Unique in its case. */
  id: string;
  combine: "any" | "all";
  /** Must hold on the unedited model, or the test is not run. */
  conditions: { prompt: string; answers: string[][] }[];
}

/** One record of a dataset. */
export interface EditCase {
  /** The dataset's id, or the position. Unique in a dataset. */
  id: string;
  /** Position in the file, from 0. */
  index: number;
  /** Line in the file where the record starts, from 1. */
  line: number;
  /** The edits that it asks for; mostly one. Checked by `validateRequest`. */
  requests: EditRequest[];
  subjectAliases?: string[];
  probes: Probe[];
  /** Texts about subjects that truly have the new object, for consistency. */
  references?: string[];
}

/** A record that cannot be used, and why. */
export interface Unusable {
  index: number;
  line: number;
  why: string;
}

/** A dataset as read. */
export interface Dataset {
  /** File name without path, or the name it was asked for by. */
  name: string;
  /** The layout that was recognised, for people: "CounterFact (ROME)". */
  layout: string;
  /** SHA-256 of the file's bytes, hex. */
  hash: string;
  /** Records in the file. */
  total: number;
  cases: EditCase[];
  unusable: Unusable[];
  /** Ids of cases that repeat an earlier one's edit, target included. */
  duplicates: { id: string; of: string }[];
  /** Ids of cases that ask for another target than an earlier one, for the same subject and prompt. */
  conflicts: { id: string; of: string }[];
  /** Published metrics that the file can give: names of `METRICS`. */
  gives: string[];
  /** Published metrics that it cannot give, and why. */
  lacks: { metric: string; why: string }[];
  /** What a reader of the numbers must know about this file. */
  notes: string[];
}
