/**
 * The tokenizer of a Hugging Face folder: tokenizer.json, or GPT-2's vocab.json and merges.txt, with the
 * switches of tokenizer_config.json.
 */
import { join } from "node:path";
import { InputError } from "./errors.ts";
import { parseJsonObject } from "./json.ts";
import { readText } from "./source.ts";
import { makeTokenizer, tokenContent, type Tokenizer } from "./tokenizer.ts";
import { fromVocabAndMerges, type Json } from "./tokenizer_json.ts";

/**
 * @param folder a model folder
 * @param config its config.json, for the BOS and EOS ids when tokenizer_config.json names none
 * @throws InputError when there is no tokenizer, or one that cannot be read
 */
export async function readTokenizer(folder: string, config: Json = {}): Promise<Tokenizer> {
  const settings = await optionalJson(folder, "tokenizer_config.json") ?? {};
  const bos = tokenContent(settings.bos_token, folder) ?? firstId(config.bos_token_id);
  const eos = tokenContent(settings.eos_token, folder) ?? firstId(config.eos_token_id);
  const specials = [bos, eos, tokenContent(settings.unk_token, folder), "<|endoftext|>"];
  const json = await optionalJson(folder, "tokenizer.json") ??
    await fromGpt2Files(folder, specials.filter((token) => typeof token === "string"));
  return makeTokenizer({
    json,
    source: folder,
    bos,
    eos,
    addBos: flag(settings.add_bos_token),
    addEos: flag(settings.add_eos_token),
    cleanUp: flag(settings.clean_up_tokenization_spaces),
  });
}

async function fromGpt2Files(folder: string, specials: string[]): Promise<Json> {
  const [vocab, merges] = [join(folder, "vocab.json"), join(folder, "merges.txt")];
  if (!(await exists(vocab)) || !(await exists(merges))) {
    const sentencePiece = await exists(join(folder, "tokenizer.model"));
    throw new InputError(`No tokenizer in ${folder}: expected tokenizer.json, or vocab.json and merges.txt`, {
      hint: sentencePiece
        ? "Convert tokenizer.model: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) in transformers"
        : "Copy tokenizer.json from the model's page into the folder",
    });
  }
  return fromVocabAndMerges(await readText(vocab), await readText(merges), specials, folder);
}

async function optionalJson(folder: string, name: string): Promise<Json | undefined> {
  const path = join(folder, name);
  return await exists(path) ? parseJsonObject(await readText(path), path) : undefined;
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then((info) => info.isFile, () => false);
}

function firstId(value: unknown): number | undefined {
  const first = Array.isArray(value) ? value[0] : value;
  return typeof first === "number" ? first : undefined;
}

function flag(value: unknown): boolean | undefined {
  return typeof value === "boolean" ? value : undefined;
}
