/**
 * Facts to choose recipes by: records in CounterFact's layout about subjects of train.json, so that none of them is
 * edited in the tables, which are made of counterfact.json and zsre.json. Prompts, paraphrases and neighbours are
 * made as in counterfact.json, but not held against what the model says.
 *
 *   deno run -A tools/atlas/tuning_set.ts --limit 100 --out tuning.json
 */
import { Command } from "npm:commander@15.1.0";
import { atlasSplit } from "../../atlas/corpus.ts";
import { atlasData } from "../../atlas/mod.ts";
import { writeFileAtomic } from "../../engine/io/atomic.ts";

type Fact = [subject: string, relation: string, object: string];
interface Question {
  subject: string;
  pred: string;
  alt: string;
}

const NEIGHBOURS = 10;

const { limit, out } = new Command()
  .option("--limit <n>", "so many records", "100")
  .requiredOption("--out <file>")
  .parse(Deno.args, { from: "user" }).opts();

const facts: Fact[] = JSON.parse(await atlasData("facts.json"));
const questions: Question[] = JSON.parse(await atlasData("train.json"));

/** Statements, which do not ask. */
const statements = (templates: string[]) => templates.filter((t) => !t.endsWith("?"));

const records = questions.flatMap(({ subject, pred, alt }, case_id) => {
  const fact = facts.find(([s, , o]) => s === subject && o === pred);
  if (!fact) return [];
  const [, relation] = fact;
  const { trained, withheld } = atlasSplit(subject, relation);
  const neighbours = facts
    .filter(([s, r, o]) => r === relation && o === pred && s !== subject)
    .slice(0, NEIGHBOURS)
    .map(([s]) => statements(atlasSplit(s, relation).trained)[case_id % 6].replace("{}", s));
  if (neighbours.length < NEIGHBOURS) return [];
  return [{
    case_id,
    requested_rewrite: {
      prompt: statements(trained)[case_id % 6],
      relation_id: relation,
      target_new: { str: alt },
      target_true: { str: pred },
      subject,
    },
    paraphrase_prompts: statements(withheld).map((t) => t.replace("{}", subject)),
    neighborhood_prompts: neighbours,
    generation_prompts: [`${subject} is`],
  }];
}).slice(0, Number(limit));

await writeFileAtomic(out, JSON.stringify(records, null, 1));
console.log(`${records.length} records in ${out}`);
