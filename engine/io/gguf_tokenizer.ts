/**
 * The tokenizer inside a GGUF file, written out as a tokenizer.json: byte-level BPE ("gpt2") with the
 * splitting pattern that the file names, or SentencePiece BPE ("llama") with merges recovered from scores.
 */
import { InputError, show } from "./errors.ts";
import type { GgufFile } from "./gguf.ts";
import { optional, text } from "./gguf_model.ts";
import { makeTokenizer, type Tokenizer } from "./tokenizer.ts";
import { CHAR_TO_BYTE } from "./tokenizer_bytes.ts";
import {
  addedToken,
  bosTemplate,
  byteLevelBpe,
  byteLevelStep,
  GPT2_SPLIT,
  type Json,
  splitStep,
} from "./tokenizer_json.ts";

const LLAMA3_SPLIT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" +
  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const QWEN2_SPLIT = LLAMA3_SPLIT.replace("\\p{N}{1,3}", "\\p{N}");
const TEKKEN_SPLIT =
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" +
  "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" +
  "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

interface PreTokenizer {
  /** Patterns applied one after the other. */
  splits: string[];
  normalizer?: Json;
  /** Llama 3's two habits: whole-word tokens skip the merges, and BOS goes first by default. */
  llama3?: boolean;
}

const digitsThenGpt2: PreTokenizer = { splits: ["\\p{N}", GPT2_SPLIT] };
const gpt2: PreTokenizer = { splits: [GPT2_SPLIT] };
const llama3: PreTokenizer = { splits: [LLAMA3_SPLIT], llama3: true };
const qwen2: PreTokenizer = { splits: [QWEN2_SPLIT], normalizer: { type: "NFC" } };

/** By `tokenizer.ggml.pre`, as in llama.cpp's llama-vocab.cpp. */
const PRE_TOKENIZERS: Record<string, PreTokenizer> = {
  "gpt-2": gpt2,
  "mpt": gpt2,
  "olmo": gpt2,
  "smollm": digitsThenGpt2,
  "starcoder": digitsThenGpt2,
  "refact": digitsThenGpt2,
  "command-r": digitsThenGpt2,
  "codeshell": digitsThenGpt2,
  "llama3": llama3,
  "llama-v3": llama3,
  "llama-bpe": llama3,
  "qwen2": qwen2,
  "deepseek-r1-qwen": qwen2,
  "tekken": { splits: [TEKKEN_SPLIT], llama3: true },
};

/** Kinds of token in `tokenizer.ggml.token_type`. */
const UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4;

/**
 * @throws InputError when the file has no tokenizer, or one of a kind that emend does not read
 */
export function ggufTokenizer(file: GgufFile): Tokenizer {
  const source = file.source.name;
  const tokens = file.metadata.get("tokenizer.ggml.tokens");
  if (!isStrings(tokens)) throw new InputError(`No tokenizer in ${source}: it has no tokenizer.ggml.tokens`);
  const id = (name: string) => specialId(file, `tokenizer.ggml.${name}_token_id`, tokens);
  const bos = id("bos"), eos = id("eos");
  const model = text(file, "tokenizer.ggml.model");
  const preName = file.metadata.get("tokenizer.ggml.pre") ?? "gpt-2";
  const pre = PRE_TOKENIZERS[String(preName)];
  if (model !== "gpt2" && model !== "llama") {
    throw new InputError(`Unknown tokenizer ${show(model)} in ${source}; emend reads gpt2 and llama`);
  }
  if (model === "gpt2" && (pre === undefined || !Object.hasOwn(PRE_TOKENIZERS, String(preName)))) {
    const known = Object.keys(PRE_TOKENIZERS).join(", ");
    throw new InputError(
      `Unknown tokenizer.ggml.pre ${show(String(preName))} in ${source}; emend reads ${known}`,
    );
  }
  const flag = (name: string) => {
    const value = file.metadata.get(`tokenizer.ggml.${name}`);
    return typeof value === "boolean" ? value : undefined;
  };
  const addBos = (flag("add_bos_token") ?? (model === "llama" || pre.llama3 === true)) && bos !== undefined;
  const first = addBos ? { id: bos, content: tokens[bos] } : undefined;
  const json = model === "gpt2"
    ? byteLevelJson(file, tokens, pre, first)
    : sentencePieceJson(file, tokens, flag("add_space_prefix") ?? true, first);
  return makeTokenizer({ json, source, bos, eos, addBos, addEos: flag("add_eos_token") });
}

function byteLevelJson(
  file: GgufFile,
  tokens: string[],
  pre: PreTokenizer,
  bos: { id: number; content: string } | undefined,
): Json {
  const merges = file.metadata.get("tokenizer.ggml.merges");
  if (!isStrings(merges)) throw new InputError(`No tokenizer.ggml.merges in ${file.source.name}`);
  const bad = merges.find((merge) => merge.split(" ").length !== 2);
  if (bad !== undefined) throw new InputError(`Bad merge ${show(bad)} in ${file.source.name}`);
  return byteLevelBpe({
    vocab: vocabulary(tokens, file),
    merges,
    addedTokens: addedTokens(file, tokens, true),
    preTokenizer: { type: "Sequence", pretokenizers: [...pre.splits.map(splitStep), byteLevelStep(false)] },
    normalizer: pre.normalizer,
    ignoreMerges: pre.llama3,
    bos,
  });
}

function sentencePieceJson(
  file: GgufFile,
  tokens: string[],
  prefixSpace: boolean,
  bos: { id: number; content: string } | undefined,
): Json {
  const scores = file.metadata.get("tokenizer.ggml.scores");
  if (!(scores instanceof Float32Array) || scores.length !== tokens.length) {
    throw new InputError(`tokenizer.ggml.scores of ${file.source.name} should be ${tokens.length} numbers`);
  }
  const vocab = vocabulary(tokens, file);
  const unknown = tokenTypes(file, tokens).indexOf(UNKNOWN);
  const space = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const steps = prefixSpace ? [{ type: "Prepend", prepend: "▁" }, space] : [space];
  const decoders: Json[] = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
  ];
  if (prefixSpace) decoders.push({ type: "Strip", content: " ", start: 1, stop: 0 });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens(file, tokens, false),
    normalizer: { type: "Sequence", normalizers: steps },
    pre_tokenizer: null,
    post_processor: bos === undefined ? null : bosTemplate(bos),
    decoder: { type: "Sequence", decoders },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknown < 0 ? null : tokens[unknown],
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      vocab,
      merges: mergesFromScores(tokens, scores),
    },
  };
}

/**
 * The merges that SentencePiece's scores imply: every way to cut a token into two tokens, best score
 * first; among equals longer left parts first (transformers' generate_merges).
 */
export function mergesFromScores(tokens: string[], scores: Float32Array): string[] {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const found: {
    left: string;
    right: string;
    leftId: number;
    rightId: number;
    score: number;
    length: number;
  }[] = [];
  for (const [id, token] of tokens.entries()) {
    const cuts: typeof found = [];
    let left = "", length = 0;
    for (const char of token) {
      const right = token.slice(left.length);
      const leftId = ids.get(left), rightId = ids.get(right);
      if (leftId !== undefined && rightId !== undefined && left !== "") {
        cuts.push({ left, right, leftId, rightId, score: scores[id], length });
      }
      left += char;
      length++;
    }
    cuts.sort((a, b) => a.leftId - b.leftId || a.rightId - b.rightId);
    found.push(...cuts);
  }
  found.sort((a, b) => b.score - a.score || b.length - a.length || [...b.right].length - [...a.right].length);
  return found.map(({ left, right }) => `${left} ${right}`);
}

function vocabulary(tokens: string[], file: GgufFile): Record<string, number> {
  const entries = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    if (entries.has(token)) throw new InputError(`Token ${show(token)} appears twice in ${file.source.name}`);
    entries.set(token, id);
  }
  return Object.fromEntries(entries);
}

/** Control and user-defined tokens, which are matched whole in a text. */
function addedTokens(file: GgufFile, tokens: string[], byteLevel: boolean): Json[] {
  const types = tokenTypes(file, tokens);
  return tokens.flatMap((token, id) => {
    const special = types[id] === CONTROL || (!byteLevel && types[id] === UNKNOWN);
    if (!special && types[id] !== USER_DEFINED) return [];
    // In a byte-level vocabulary every real token is in that alphabet; others are converters' mislabels.
    if (byteLevel && special && ![...token].every((char) => CHAR_TO_BYTE.has(char))) return [];
    return [addedToken(id, token, special)];
  });
}

function tokenTypes(file: GgufFile, tokens: string[]): Int32Array {
  const types = file.metadata.get("tokenizer.ggml.token_type");
  if (types === undefined) return new Int32Array(tokens.length);
  if (types instanceof Int32Array && types.length === tokens.length) return types;
  throw new InputError(`tokenizer.ggml.token_type of ${file.source.name} should be ${tokens.length} numbers`);
}

function specialId(file: GgufFile, key: string, tokens: string[]): number | undefined {
  const id = optional(file, key);
  if (id === undefined || tokens[id] !== undefined) return id;
  throw new InputError(
    `Metadata ${key} of ${file.source.name} is ${id}, but there are ${tokens.length} tokens`,
  );
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}
