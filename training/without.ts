/** Facts that must not be trained on, because a dataset that will be evaluated on edits them. */
import { createHash } from "node:crypto";
import { fill } from "../editors/requests.ts";
import { readDataset } from "../evaluation/datasets/read.ts";

/** What is withheld from a training. */
export interface Withheld {
  /** The datasets' names. */
  name: string;
  /** SHA-256 of their files, hex. */
  hash: string;
  /** Whether a record is about a subject that is edited there, or asks what is edited there. */
  holds(record: { subject?: string; prompt: string }): boolean;
}

/**
 * Reads what some datasets edit, in any layout that `eval` knows.
 * @throws {InputError} as {@link readDataset}
 */
export async function withheld(datasets: readonly string[]): Promise<Withheld> {
  const subjects = new Set<string>(), prompts = new Set<string>(), names: string[] = [];
  const hash = createHash("sha256");
  for (const path of datasets) {
    const dataset = await readDataset(path);
    for (const { prompt, subject } of dataset.cases.flatMap(({ requests }) => requests)) {
      subjects.add(plain(subject));
      prompts.add(plain(fill(prompt, subject).text));
    }
    names.push(dataset.name);
    hash.update(dataset.hash);
  }
  return {
    name: names.join(", "),
    hash: hash.digest("hex"),
    holds: ({ subject, prompt }) =>
      subject !== undefined && subjects.has(plain(subject)) || prompts.has(plain(prompt)),
  };
}

function plain(text: string): string {
  return text.trim().toLowerCase();
}
