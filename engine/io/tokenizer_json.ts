/**
 * tokenizer.json as data: building one from GPT-2's vocab.json and merges.txt, reading the special tokens
 * that it puts around a text, and rewriting the parts that the JavaScript engine runs differently from
 * the Rust one.
 */
import { InputError, show } from "./errors.ts";
import { isObject, parseJsonObject } from "./json.ts";

/** A JSON object whose parts are looked at as they are needed. */
export type Json = Record<string, unknown>;

/** GPT-2's split, as written in the Rust ByteLevel pre-tokenizer. */
export const GPT2_SPLIT =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** A pre-tokenizer that cuts out every match of a pattern. */
export function splitStep(regex: string): Json {
  return { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
}

/** The step that turns text into the byte-level alphabet; `useRegex` also splits as GPT-2 does. */
export function byteLevelStep(useRegex: boolean): Json {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: useRegex };
}

/** One entry of `added_tokens`. */
export function addedToken(id: number, content: string, special: boolean): Json {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special };
}

/** The parts of a byte-level BPE tokenizer that differ between models. */
export interface ByteLevelBpe {
  vocab: Record<string, number>;
  /** Pairs joined by a space, best first. */
  merges: string[];
  addedTokens: Json[];
  preTokenizer?: Json;
  normalizer?: Json;
  /** A whole word that is a token is taken as it is, without running its merges (Llama 3). */
  ignoreMerges?: boolean;
  /** Put before every text. */
  bos?: { id: number; content: string };
}

/** A tokenizer.json for a byte-level BPE vocabulary. */
export function byteLevelBpe(parts: ByteLevelBpe): Json {
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: parts.addedTokens,
    normalizer: parts.normalizer ?? null,
    pre_tokenizer: parts.preTokenizer ?? byteLevelStep(true),
    post_processor: parts.bos === undefined ? byteLevelStep(true) : bosTemplate(parts.bos),
    decoder: byteLevelStep(true),
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: parts.ignoreMerges ?? false,
      vocab: parts.vocab,
      merges: parts.merges,
    },
  };
}

/** The post-processor that puts one token before the text. */
export function bosTemplate({ id, content }: { id: number; content: string }): Json {
  const special = (type_id: number) => ({ SpecialToken: { id: content, type_id } });
  const text = (name: string, type_id: number) => ({ Sequence: { id: name, type_id } });
  return {
    type: "TemplateProcessing",
    single: [special(0), text("A", 0)],
    pair: [special(0), text("A", 0), special(1), text("B", 1)],
    special_tokens: { [content]: { id: content, ids: [id], tokens: [content] } },
  };
}

/**
 * GPT-2's two files as a tokenizer.json.
 * @param vocabText vocab.json: token → id
 * @param mergesText merges.txt: a version line, then one merge a line
 * @param specials tokens of the vocabulary that are special, such as `<|endoftext|>`
 * @throws InputError naming the file and line that is wrong
 */
export function fromVocabAndMerges(
  vocabText: string,
  mergesText: string,
  specials: string[],
  folder: string,
): Json {
  const vocab = parseJsonObject(vocabText, `vocab.json of ${folder}`) as Record<string, number>;
  for (const [token, id] of Object.entries(vocab)) {
    if (!Number.isSafeInteger(id) || id < 0) {
      throw new InputError(`Cannot read vocab.json of ${folder}: token ${show(token)} has id ${show(id)}`);
    }
  }
  const merges: string[] = [];
  for (const [i, line] of mergesText.split(/\r?\n/).entries()) {
    if (line === "" || (i === 0 && line.startsWith("#version"))) continue;
    if (!/^[^ ]+ [^ ]+$/.test(line)) {
      throw new InputError(`Cannot read merges.txt of ${folder}: line ${i + 1} is not a pair of tokens`);
    }
    merges.push(line);
  }
  const addedTokens = [...new Set(specials)]
    .filter((token) => Object.hasOwn(vocab, token))
    .map((token) => addedToken(vocab[token], token, true));
  return byteLevelBpe({ vocab, merges, addedTokens });
}

/** Ids that the post-processor puts before and after a single text. */
export function specialsAround(post: unknown): { before: number[]; after: number[] } {
  const before: number[] = [], after: number[] = [];
  if (!isObject(post)) return { before, after };
  if (post.type === "Sequence") {
    for (const part of post.processors as unknown[] ?? []) {
      const inner = specialsAround(part);
      before.unshift(...inner.before);
      after.push(...inner.after);
    }
  } else if (post.type === "TemplateProcessing") {
    const ids = post.special_tokens as Record<string, { ids: number[] }>;
    let list = before;
    for (const item of post.single as { SpecialToken?: { id: string }; Sequence?: unknown }[]) {
      if (item.SpecialToken !== undefined) list.push(...ids[item.SpecialToken.id].ids);
      else list = after;
    }
  } else if (post.type === "BertProcessing" || post.type === "RobertaProcessing") {
    before.push((post.cls as [string, number])[1]);
    after.push((post.sep as [string, number])[1]);
  }
  return { before, after };
}

/**
 * A copy of a tokenizer.json for @huggingface/tokenizers 0.2.0, whose built-in ByteLevel and Digits
 * patterns use JavaScript's `\s` and `\d` (U+0085, U+FEFF and non-ASCII digits differ). Its Split step
 * translates patterns properly, so those two are written as Splits.
 */
export function forJsEngine(json: Json): Json {
  return {
    ...json,
    added_tokens: json.added_tokens ?? [],
    normalizer: json.normalizer ?? null,
    pre_tokenizer: rewriteStep(json.pre_tokenizer ?? null),
    post_processor: json.post_processor ?? null,
    decoder: json.decoder ?? null,
  };
}

function rewriteStep(step: unknown): unknown {
  if (!isObject(step)) return null;
  if (step.type === "Sequence") {
    return { ...step, pretokenizers: (step.pretokenizers as unknown[]).map(rewriteStep) };
  }
  if (step.type === "Digits") return splitStep(step.individual_digits === true ? "\\p{N}" : "\\p{N}+");
  // With a prefix space the built-in one must add it before it splits.
  if (step.type === "ByteLevel" && step.use_regex !== false && step.add_prefix_space !== true) {
    return { type: "Sequence", pretokenizers: [splitStep(GPT2_SPLIT), { ...step, use_regex: false }] };
  }
  return step;
}
