/** Facts in several wordings, which SERAC is trained on: atlas' own, or those of a file. */
import { atlasData } from "../atlas/mod.ts";
import { readCorpus } from "../editors/ike_corpus.ts";
import type { SeracRecord } from "../editors/serac/data.ts";
import { InputError } from "../engine/io/errors.ts";

type Relations = Record<string, { statements: string[]; questions: string[] }>;

/** atlas' facts without the subjects of its evaluation sets: nothing that is measured is seen. */
export async function atlasSeracRecords(): Promise<SeracRecord[]> {
  const read = async (name: string) => JSON.parse(await atlasData(name));
  const facts: [subject: string, relation: string, object: string][] = await read("facts.json");
  const relations: Relations = await read("relations.json");
  const edits: { requested_rewrite: { subject: string } }[] = await read("counterfact.json");
  const questions: { subject: string }[] = await read("zsre.json");
  const tested = new Set([
    ...edits.map(({ requested_rewrite: { subject } }) => subject),
    ...questions.map(({ subject }) => subject),
  ]);
  const objects = Map.groupBy(facts, ([, relation]) => relation);
  return facts.filter(([subject]) => !tested.has(subject)).map(([subject, kind, answer]): SeracRecord => {
    const { statements, questions } = relations[kind];
    return {
      ...{ subject, kind, answer },
      wordings: [...statements, ...questions].map((template) => template.replace("{}", () => subject)),
      targets: [...new Set(objects.get(kind)!.map(([, , object]) => object))].filter((o) => o !== answer),
    };
  });
}

/**
 * The records of a file in CounterFact's (ROME's or EasyEdit's) or zsRE's layout. Prompts that differ by their
 * subjects only are facts of one kind.
 * @throws {InputError} when it cannot be read, or has facts about fewer than two subjects
 */
export async function fileSeracRecords(path: string): Promise<SeracRecord[]> {
  const records = (await readCorpus(path)).map((record): SeracRecord => ({
    subject: record.subject,
    kind: record.prompt.replace(record.subject, "{}"),
    answer: record.neighbours[0].answer,
    wordings: [record.prompt, ...record.paraphrases],
    targets: [record.new],
  }));
  if (new Set(records.map(({ subject }) => subject)).size > 1) return records;
  throw new InputError(`${path} has facts about one subject only: SERAC learns to tell several apart`);
}
