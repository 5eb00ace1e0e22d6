/**
 * The demonstrations of IKE: records of facts, each with rewordings (what an edit should change too) and with
 * prompts that it should leave alone. Read from CounterFact (ROME's and EasyEdit's layout) and from zsRE (MEND's
 * and KnowEdit's).
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { z } from "npm:zod@4.6.7";
import { writeFileAtomic } from "../engine/io/atomic.ts";
import { cacheFolder } from "../engine/io/cache.ts";
import { InputError } from "../engine/io/errors.ts";
import { centred, type Encoder, meanRow } from "./prompts/encoders.ts";

/** One record. Prompts are filled in; answers have no space before them. */
export interface CorpusRecord {
  subject: string;
  prompt: string;
  new: string;
  paraphrases: string[];
  /** Prompts about something else, with their true answers. */
  neighbours: { prompt: string; answer: string }[];
}

const text = z.string().trim().min(1);
const str = z.object({ str: text });

const counterfact = z.object({
  requested_rewrite: z.object({ prompt: text, subject: text, target_new: str, target_true: str }),
  paraphrase_prompts: z.array(text),
  neighborhood_prompts: z.array(text),
}).transform(({ requested_rewrite: r, ...rest }): CorpusRecord => ({
  subject: r.subject,
  prompt: r.prompt.replace("{}", r.subject),
  new: r.target_new.str,
  paraphrases: rest.paraphrase_prompts,
  neighbours: rest.neighborhood_prompts.map((prompt) => ({ prompt, answer: r.target_true.str })),
}));

const easyEdit = z.object({
  prompt: text,
  subject: text,
  target_new: text,
  rephrase_prompt: text,
  locality_prompt: text,
  locality_ground_truth: text,
}).transform((r): CorpusRecord => ({
  subject: r.subject,
  prompt: r.prompt,
  new: r.target_new,
  paraphrases: [r.rephrase_prompt],
  neighbours: [{ prompt: r.locality_prompt, answer: r.locality_ground_truth }],
}));

/** An answer, or several of which the first one counts. */
const answer = z.union([text, z.array(z.union([text, z.array(text).min(1)])).min(1)])
  .transform((given) => [given].flat(2)[0]);

/** What KnowEdit asks for locality is asked about the subject itself: other facts of it that must stay. */
const knowEdit = z.object({
  prompt: text,
  subject: text,
  target_new: answer,
  rephrase_prompt: text,
  locality: z.record(z.string(), z.array(z.object({ prompt: text, ground_truth: answer }))),
}).transform((r): CorpusRecord => ({
  subject: r.subject,
  prompt: r.prompt,
  new: r.target_new,
  paraphrases: [r.rephrase_prompt],
  neighbours: Object.values(r.locality).flat().map(({ prompt, ground_truth }) => (
    { prompt, answer: ground_truth }
  )),
}));

const zsre = z.object({ subject: text, src: text, rephrase: text, alt: text, loc: text, loc_ans: text })
  .transform((r): CorpusRecord => ({
    subject: r.subject,
    prompt: r.src,
    new: r.alt,
    paraphrases: [r.rephrase],
    // "nq question: …" marks the other dataset in MEND's files; it is no part of the question.
    neighbours: [{ prompt: r.loc.replace(/^nq question: /, ""), answer: r.loc_ans }],
  }));

const LAYOUTS = [counterfact, easyEdit, knowEdit, zsre] as const;

/**
 * Reads a corpus, a JSON array of records; those that lack a field are left out. Of records with the same subject
 * and prompt the first one stays.
 * @param skip records at the file's beginning that are not to be used, because they are what is tested
 * @throws {InputError} when there is no usable record
 */
export async function readCorpus(path: string, skip = 0): Promise<CorpusRecord[]> {
  const content = await Deno.readTextFile(path).catch(() => {
    throw new InputError(`Cannot read the corpus ${path}`);
  });
  let list: unknown;
  try {
    list = JSON.parse(content);
  } catch {
    throw new InputError(`The corpus ${path} is not JSON`);
  }
  if (!Array.isArray(list)) throw new InputError(`The corpus ${path} is not an array of records`);
  const records = new Map<string, CorpusRecord>();
  for (const item of list.slice(skip)) {
    const record = LAYOUTS.map((layout) => layout.safeParse(item)).find(({ success }) => success)?.data;
    if (!record || record.paraphrases.length === 0 || record.neighbours.length === 0) continue;
    const key = `${record.subject}\t${record.prompt}`;
    if (!records.has(key)) records.set(key, record);
  }
  if (records.size > 0) return [...records.values()];
  throw new InputError(`The corpus ${path} has no record with a rewording and a prompt to leave alone`, {
    hint: "CounterFact (ROME's or EasyEdit's layout) and zsRE (MEND's or KnowEdit's) have them",
  });
}

/** What a record is found by, as the authors' encode_facts.py has it. */
export function corpusText({ prompt, new: target }: Pick<CorpusRecord, "prompt" | "new">): string {
  return `New Fact: ${prompt} ${target}\nPrompt: ${prompt} ${target}`;
}

/** Embeddings of texts, kept in the user's cache by encoder and content. */
export async function cachedEmbeddings(
  encoder: Encoder,
  texts: readonly string[],
  model: string,
): Promise<Float32Array> {
  const about = [encoder.name, encoder.name.kind === "states" ? model : "", texts];
  const key = createHash("sha256").update(JSON.stringify(about)).digest("hex").slice(0, 32);
  const path = join(cacheFolder(), "embeddings", `${key}.f32`);
  const known = await Deno.readFile(path).catch(() => undefined);
  if (known?.byteLength === texts.length * encoder.width * 4) return new Float32Array(known.buffer);
  const values = await encoder.embed(texts);
  // Only a convenience: a full disk must not end an edit.
  await writeFileAtomic(path, new Uint8Array(values.buffer)).catch(() => {});
  return values;
}

/** A corpus with its embeddings, of length 1. */
export interface Corpus {
  records: CorpusRecord[];
  /** [records, width] */
  embeddings: Float32Array;
  /** Of states: what was taken off, [width]. */
  mean?: Float32Array;
}

/** Reads a corpus and embeds its records. @param model by name: states are its own */
export async function openCorpus(
  encoder: Encoder,
  path: string,
  skip: number,
  model: string,
): Promise<Corpus> {
  const records = await readCorpus(path, skip);
  const values = await cachedEmbeddings(encoder, records.map(corpusText), model);
  if (encoder.name.kind === "sentence") return { records, embeddings: values };
  const mean = meanRow(values, encoder.width);
  return { records, embeddings: centred(values, encoder.width, mean), mean };
}
