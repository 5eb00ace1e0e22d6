/**
 * Text to token ids and back, with the place of every token in the text. The work is done by
 * @huggingface/tokenizers from a tokenizer.json; what it lacks (spans, BOS switches) is added here.
 */
import { Tokenizer as Engine } from "npm:@huggingface/tokenizers@0.2.0";
import { InputError, show } from "./errors.ts";
import { isObject } from "./json.ts";
import { byteLevelBytes, metaspaceBytes, readable } from "./tokenizer_bytes.ts";
import { forJsEngine, type Json, specialsAround } from "./tokenizer_json.ts";
import { type Piece, placeTokens, type Span } from "./tokenizer_spans.ts";

/** What to add when encoding. */
export interface EncodeOptions {
  /** Add BOS (and EOS) as the tokenizer does by default. Default true. */
  special?: boolean;
}

/** A model's tokenizer. */
export interface Tokenizer {
  /** Highest token id plus one; the model's embedding may have more rows. */
  readonly vocabSize: number;
  readonly bos?: number;
  readonly eos?: number;
  /** Whether `encode` puts BOS before the text. */
  readonly addsBos: boolean;
  encode(text: string, options?: EncodeOptions): number[];
  /** `spans[i]` is where token i lies in `text`, in UTF-16 units; added BOS and EOS get [0, 0]. */
  encodeWithOffsets(text: string, options?: EncodeOptions): { ids: number[]; spans: Span[] };
  /** Ids that name no token are left out. */
  decode(ids: number[], options?: { skipSpecial?: boolean }): string;
  /** One token as readable text, such as " Paris"; bytes that are no whole character as `<0xNN>`. */
  token(id: number): string;
  /** A tokenizer.json for saving beside a checkpoint. */
  toJSON(): unknown;
}

/** What a tokenizer is made of. */
export interface TokenizerParts {
  /** The content of a tokenizer.json. */
  json: Json;
  /** Where it comes from, for error messages. */
  source: string;
  bos?: string | number;
  eos?: string | number;
  /** Overrides whether BOS / EOS are added; undefined leaves it to the post-processor. */
  addBos?: boolean;
  addEos?: boolean;
  /** Drop spaces before punctuation when decoding (tokenizer_config's clean_up_tokenization_spaces). */
  cleanUp?: boolean;
}

/**
 * Makes a tokenizer.
 * @throws InputError when the JSON is not one that the library understands
 */
export function makeTokenizer(parts: TokenizerParts): Tokenizer {
  const { json, source, cleanUp = false } = parts;
  const engine = start(json, source);
  const added = new Map<number, string>();
  for (const [id, token] of engine.get_added_tokens_decoder()) added.set(id, token.content);
  const idOf = (token: string | number | undefined) =>
    typeof token === "string" ? engine.token_to_id(token) : token;
  const bos = idOf(parts.bos), eos = idOf(parts.eos);
  const { before, after } = around(parts, bos, eos);
  const metaspace = !usesByteLevel(json);
  const normalise = guarded(source, () => normaliserOf(json.normalizer));
  const unknown = isObject(json.model) ? json.model.unk_token : undefined;
  let vocabSize = 0;
  for (const id of engine.get_vocab().values()) vocabSize = Math.max(vocabSize, id + 1);

  const bytesOf = (spelling: string): Uint8Array =>
    metaspace ? metaspaceBytes(spelling.replace(/^##(?=.)/, "")) : byteLevelBytes(spelling);

  function inner(text: string): number[] {
    const { ids } = engine.encode(text, { add_special_tokens: false });
    // The library maps a piece that is in no vocabulary to undefined when there is no unknown token.
    return ids.filter((id) => id !== undefined);
  }

  function piece(id: number): Piece {
    const content = added.get(id);
    const spelling = engine.id_to_token(id)!;
    if (spelling === unknown) return { bytes: undefined, added: false };
    if (content !== undefined) return { bytes: new TextEncoder().encode(content), added: true };
    return { bytes: bytesOf(spelling), added: false };
  }

  return {
    vocabSize,
    ...(bos === undefined ? {} : { bos }),
    ...(eos === undefined ? {} : { eos }),
    addsBos: bos !== undefined && before.includes(bos),
    encode(text, { special = true } = {}) {
      return special ? [...before, ...inner(text), ...after] : inner(text);
    },
    encodeWithOffsets(text, { special = true } = {}) {
      const ids = inner(text);
      const spans = placeTokens(text, ids.map(piece), normalise, metaspace);
      if (!special) return { ids, spans };
      const nowhere = (list: number[]) => list.map((): Span => [0, 0]);
      return { ids: [...before, ...ids, ...after], spans: [...nowhere(before), ...spans, ...nowhere(after)] };
    },
    decode(ids, { skipSpecial = false } = {}) {
      const known = ids.filter((id) => engine.id_to_token(id) !== undefined);
      if (known.length === 0) return "";
      return engine.decode(known, {
        skip_special_tokens: skipSpecial,
        clean_up_tokenization_spaces: cleanUp,
      });
    },
    token(id) {
      const spelling = engine.id_to_token(id);
      if (spelling === undefined) return `<id ${id}>`;
      return added.get(id) ?? readable(bytesOf(spelling));
    },
    toJSON: () => json,
  };
}

function start(json: Json, source: string): Engine {
  if (!isObject(json.model) || !("vocab" in json.model)) {
    throw new InputError(`Cannot read the tokenizer of ${source}: it has no model with a vocabulary`);
  }
  // Files from before 2020 leave the type out; the library then tells by what else is there.
  const { type } = json.model;
  if (type !== undefined && !["BPE", "Unigram", "WordPiece"].includes(String(type))) {
    throw new InputError(
      `Unknown tokenizer model ${show(type)} in ${source}; emend reads BPE, Unigram, WordPiece`,
    );
  }
  checkVocabulary(json.model.vocab, json.added_tokens, source);
  return guarded(source, () => {
    // The second argument is tokenizer_config.json; the parts of it that matter are handled here.
    const engine = new Engine(forJsEngine(json), {});
    // Some mistakes only show when a step runs.
    const { ids } = engine.encode("A rehearsal, in 2 parts");
    if (ids.length > 0 && ids[0] !== undefined) engine.decode(ids);
    return engine;
  });
}

/** Every id must be a number that a table can be indexed with. */
function checkVocabulary(vocab: unknown, added: unknown, source: string): void {
  const ids = isObject(vocab) ? Object.entries(vocab) : [];
  for (const token of Array.isArray(added) ? added : []) {
    const { id, content } = isObject(token) ? token : {};
    if (typeof content !== "string") {
      throw new InputError(`Cannot read the tokenizer of ${source}: bad added token ${show(token)}`);
    }
    ids.push([content, id]);
  }
  for (const [token, id] of ids) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > MAX_ID) {
      throw new InputError(`Cannot read the tokenizer of ${source}: token ${show(token)} has id ${show(id)}`);
    }
  }
}

/** Far above any vocabulary. */
const MAX_ID = 2 ** 24;

/** Runs code that walks an unchecked tokenizer.json; whatever it throws is the file's fault. */
function guarded<T>(source: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new InputError(`Cannot read the tokenizer of ${source}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** The ids before and after a text: the post-processor's, with the BOS and EOS switches applied. */
function around(parts: TokenizerParts, bos: number | undefined, eos: number | undefined) {
  const { before, after } = guarded(parts.source, () => specialsAround(parts.json.post_processor));
  if (![...before, ...after].every(Number.isInteger)) {
    throw new InputError(
      `Cannot read the tokenizer of ${parts.source}: its post_processor adds what is no id`,
    );
  }
  if (parts.addBos === true && bos === undefined) {
    throw new InputError(`The tokenizer of ${parts.source} adds a BOS token but names none that it knows`);
  }
  return { before: switched(before, bos, parts.addBos), after: switched(after, eos, parts.addEos) };
}

function switched(ids: number[], id: number | undefined, wanted: boolean | undefined): number[] {
  if (id === undefined || wanted === undefined || ids.includes(id) === wanted) return ids;
  return wanted ? [id, ...ids] : ids.filter((other) => other !== id);
}

/** Whether the vocabulary is spelled in the byte-level alphabet. */
function usesByteLevel(json: Json): boolean {
  const isByteLevel = (step: unknown): boolean =>
    isObject(step) && (step.type === "ByteLevel" ||
      [step.pretokenizers, step.decoders].some((list) => Array.isArray(list) && list.some(isByteLevel)));
  return isByteLevel(json.pre_tokenizer) || isByteLevel(json.decoder);
}

/** What a normalizer does to the spelling of characters; adding or replacing spaces is not part of it. */
function normaliserOf(step: unknown): ((text: string) => string) | undefined {
  if (!isObject(step)) return undefined;
  if (step.type === "Sequence") {
    const steps = (step.normalizers as unknown[]).map(normaliserOf).filter((f) => f !== undefined);
    return steps.length === 0 ? undefined : (text) => steps.reduce((t, f) => f(t), text);
  }
  const stripAccents = (text: string) => text.normalize("NFD").replace(/\p{Mn}/gu, "");
  switch (step.type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD": {
      const form = step.type;
      return (text) => text.normalize(form);
    }
    case "Precompiled":
      return (text) => text.normalize("NFKC");
    case "Lowercase":
      return (text) => text.toLowerCase();
    case "StripAccents":
      return stripAccents;
    case "BertNormalizer": {
      const lower = step.lowercase !== false;
      const strip = step.strip_accents ?? lower;
      return (text) => {
        const plain = strip ? stripAccents(text) : text;
        return lower ? plain.toLowerCase() : plain;
      };
    }
    default:
      return undefined;
  }
}

/** A special token as tokenizer_config.json gives it: a string, or an object with `content`. */
export function tokenContent(value: unknown, source: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  if (isObject(value) && typeof value.content === "string") return value.content;
  throw new InputError(`Bad special token in tokenizer_config.json of ${source}: ${show(value)}`);
}
