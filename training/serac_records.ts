/** Facts in several wordings, which SERAC is trained on: atlas' own, or those of a file. */
import { atlasData } from "../atlas/mod.ts";
import type { SeracRecord } from "../editors/serac/data.ts";
import { InputError } from "../engine/io/errors.ts";
import { fileParts, type RecordOptions } from "./records.ts";

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
 * The records of a file in a layout that editors are trained with. Prompts that differ by their subjects only are
 * facts of one kind; of records with the same subject and prompt the first one stays.
 * @throws {InputError} when it cannot be read, naming lines that cannot be used
 */
export async function fileSeracRecords(path: string, options: RecordOptions = {}): Promise<SeracRecord[]> {
  const all = await fileParts(path, ({ subject, before }) => {
    if (subject === undefined) throw new InputError('has no "subject"');
    if (before === undefined) throw new InputError("does not say what is true now");
  }, options);
  const records = new Map<string, SeracRecord>();
  for (const { subject, prompt, rephrases, alt, before } of all) {
    const key = JSON.stringify([subject, prompt]);
    if (records.has(key)) continue;
    records.set(key, {
      subject: subject!,
      kind: prompt.replace(subject!, "{}"),
      answer: before!,
      wordings: [prompt, ...rephrases],
      targets: alt,
    });
  }
  return [...records.values()];
}
