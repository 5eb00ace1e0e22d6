/** The requests of the data sets and the tokenizers that the editors' tests use; both where the machine has them. */
import { openCheckpoint } from "../../engine/io/checkpoint.ts";
import type { Tokenizer } from "../../engine/io/tokenizer.ts";
import { readTokenizer } from "../../engine/io/tokenizer_files.ts";
import type { EditRequest } from "../../editors/requests.ts";
import { GPT2, NEEDS, SMOLLM2, STORIES } from "../engine/io/_data.ts";

export const ATLAS = new URL("../../atlas/model", import.meta.url).pathname;

/** A tokenizer and where it comes from; `path` is undefined where the machine has it not. */
export interface TokenizerCase {
  name: string;
  path: string | undefined;
  needs: string;
  open(path: string): Promise<Tokenizer>;
}

const ofFolder = async (path: string) =>
  await readTokenizer(path, JSON.parse(await Deno.readTextFile(`${path}/config.json`)));

async function ofGguf(path: string): Promise<Tokenizer> {
  const checkpoint = await openCheckpoint(path);
  const tokenizer = await checkpoint.tokenizer();
  checkpoint.close();
  return tokenizer;
}

export const TOKENIZERS: readonly TokenizerCase[] = [
  { name: "atlas", path: ATLAS, needs: "", open: ofFolder },
  { name: "GPT-2", path: GPT2, needs: NEEDS.gpt2, open: ofFolder },
  { name: "SmolLM2", path: SMOLLM2, needs: NEEDS.smollm2, open: ofGguf },
  { name: "stories260k", path: STORIES, needs: NEEDS.stories, open: ofFolder },
];

// deno-lint-ignore no-explicit-any -- records of foreign layouts
type Fields = (record: any) => EditRequest;

const counterFact: Fields = ({ requested_rewrite: r }) => ({
  prompt: r.prompt,
  subject: r.subject,
  target: r.target_new.str,
});
const easyEdit: Fields = ({ prompt, subject, target_new }) => ({ prompt, subject, target: target_new });
const mend: Fields = ({ src, subject, alt }) => ({ prompt: src, subject, target: alt });

const SETS: [file: string, fields: Fields][] = [
  ["atlas/data/counterfact.json", counterFact],
  ["atlas/data/zsre.json", mend],
  ["../shared/data/counterfact/counterfact-500.json", counterFact],
  ["../shared/data/counterfact/counterfact-easyedit-edit-2000.json", easyEdit],
  ["../shared/data/counterfact/counterfact-easyedit-train.json", easyEdit],
  ["../shared/data/counterfact/counterfact-easyedit-val.json", easyEdit],
  ["../shared/data/zsre/zsre-mend-train-1000.json", mend],
  ["../shared/data/knowedit/zsre-test-652.json", easyEdit],
  ["../shared/data/knowedit/wiki-counterfact-714.json", easyEdit],
];

/** Requests by data set: atlas' own, and those beside the repository where they are there. */
export const REQUESTS = new Map<string, EditRequest[]>();
for (const [file, fields] of SETS) {
  try {
    const text = await Deno.readTextFile(new URL(`../../${file}`, import.meta.url));
    // Two records of zsRE's training part want nothing.
    REQUESTS.set(file, JSON.parse(text).map(fields).filter(({ target }: EditRequest) => target !== ""));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log(`skipped: the prompts of ${file} (there is no such file)`);
  }
}
