/**
 * IKE, in-context knowledge editing (Zheng et al. 2023): no parameter changes; 32 demonstrations from a corpus of
 * other facts (4 copy, 12 update, 16 retain), found by a sentence encoder, stand before every prompt, and after
 * them the new fact. ICE (KnowEdit's name) is the new fact alone, without demonstrations.
 *
 * With one fact it is put before every prompt, as the authors do. With several, the one whose prompt is nearest to
 * what is asked is, or none where none is near: the authors have no such case, guide section 9.3.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../engine/io/errors.ts";
import type { Model } from "../engine/models/model.ts";
import type { Corpus, CorpusRecord } from "./ike_corpus.ts";
import { type Counts, type Demonstration, demonstrations, frontOf } from "./ike_demonstrations.ts";
import { cosineScope } from "./prompts/cosine_scope.ts";
import type { Fact, Scope } from "./prompts/edit.ts";
import { askedText, promptMethod } from "./prompts/method.ts";
import { place } from "./prompts/scope.ts";
import type { EditRequest } from "./requests.ts";
import type { EditOptions } from "./rome.ts";

const shared = {
  /** No layer is edited. */
  layers: z.array(z.number()).max(0).default([]),
  /** `minilm`, `states` (the model's own), `auto` (the first where it is in the cache), or a folder. */
  encoder: z.string().default("auto"),
  /** Cosine from which on a prompt is about a fact, where there are several; see docs/memory-methods.md. */
  limit: z.number().min(-1).max(1).optional(),
  /** By how much the nearest of three facts or more must stand out from the third nearest. */
  margin: z.number().min(0).max(2).optional(),
  /** `nearest` also for one fact; `always`: the nearest fact before every prompt; `gold`: an oracle. */
  scope: z.enum(["published", "nearest", "always", "gold"]).default("published"),
  /** A file of records for demonstrations (and to centre states on). */
  corpus: z.string().optional(),
  /** Records at its beginning that are left alone, because they are what is tested. */
  corpus_skip: z.number().int().min(0).default(0),
};

export const iceSchema = z.object(shared);

export const ikeSchema = z.object({
  ...shared,
  /** Demonstrations of each kind; halved until they fit the context. */
  copy: z.number().int().min(0).default(4),
  update: z.number().int().min(0).default(12),
  retain: z.number().int().min(0).default(16),
  /** Tokens of the context that stay free for prompts and answers. */
  room: z.number().int().min(1).default(64),
});

export type IceHparams = z.infer<typeof iceSchema>;
export type IkeHparams = z.infer<typeof ikeSchema>;

/** Records nearest to an embedding of length 1, nearest first, without those about the subject itself. */
export function nearestRecords(
  { records, embeddings }: Corpus,
  embedding: Float32Array,
  subject: string,
  count: number,
): CorpusRecord[] {
  const width = embedding.length;
  const scored = records.map((record, i) => {
    let cosine = 0;
    for (let d = 0; d < width; d++) cosine += embedding[d] * embeddings[i * width + d];
    return { record, cosine };
  });
  const same = subject.trim().toLowerCase();
  return scored.filter(({ record }) => record.subject.toLowerCase() !== same)
    .sort((a, b) => b.cosine - a.cosine).slice(0, count).map(({ record }) => record);
}

/** What both methods share: encoder, scope, and the place of each fact in it. */
async function memoryOf(
  model: Model,
  requests: readonly EditRequest[],
  { hparams }: EditOptions<IceHparams>,
) {
  const { encoder, corpus, measured } = await cosineScope(model, hparams, requests.length > 1);
  const scope: Scope = {
    rule: hparams.scope === "published" ? "nearest" : hparams.scope,
    alone: hparams.scope === "published",
    ...measured,
  };
  const texts = requests.map(askedText);
  const embeddings = await place(encoder, scope, texts);
  const fact = (i: number, front: string): Fact => (
    { text: texts[i], front, embedding: embeddings.slice(i * encoder.width, (i + 1) * encoder.width) }
  );
  return { encoder, corpus, scope, fact };
}

/** @throws {InputError} without one: what IKE shows are other facts */
function requireCorpus(corpus: Corpus | undefined): Corpus {
  if (corpus) return corpus;
  throw new InputError("IKE needs a corpus of other facts for its demonstrations", {
    hint: "Give one with --set corpus=FILE; --method ice does without",
  });
}

/** In-context editing with demonstrations. */
export const ike = promptMethod<IkeHparams>({
  name: "ike",
  summary: "IKE (Zheng et al. 2023): the fact and 32 demonstrations in front; no weight changes",
  schema: ikeSchema,
  recipe: () => ({ hparams: {}, source: "The authors' settings, the same for all models", known: true }),
  prepare: async (model, hparams) => requireCorpus((await cosineScope(model, hparams, false)).corpus),
  async make(model, requests, options) {
    const { hparams, seed = 0 } = options;
    const { encoder, corpus, scope, fact } = await memoryOf(model, requests, options);
    const demonstrated = requireCorpus(corpus);
    const told = requests.map((request) => ({ prompt: askedText(request), new: request.target.trim() }));
    // The authors look for demonstrations with the fact and the question.
    const questions = await place(
      encoder,
      scope,
      told.map(({ prompt, new: target }) => `New Fact: ${prompt} ${target}\nPrompt: ${prompt}`),
    );
    const warnings: string[][] = [];
    const facts = told.map((one, i) => {
      const question = questions.subarray(i * encoder.width, (i + 1) * encoder.width);
      const nearest = (count: number) => nearestRecords(demonstrated, question, requests[i].subject, count);
      const made = fitting(model, one, nearest, hparams, seed + i);
      warnings.push(made.warnings);
      return fact(i, frontOf(one, made.before));
    });
    return { prompts: { scope, facts, answers: { kind: "base" } }, warnings };
  },
});

/** Demonstrations that leave room in the context: all, or half of each kind, or a quarter … */
function fitting(
  { tokenizer, dims }: Model,
  fact: { prompt: string; new: string },
  nearest: (count: number) => CorpusRecord[],
  { copy, update, retain, room }: IkeHparams,
  seed: number,
): { before: Demonstration[]; warnings: string[] } {
  const asked = copy + update + retain;
  let counts: Counts = { copy, update, retain };
  for (;;) {
    const total = counts.copy + counts.update + counts.retain;
    const before = demonstrations(fact, nearest(total), counts, seed);
    const tokens = tokenizer.encode(frontOf(fact, before)).length;
    if (tokens + room <= dims.maxPositions || total === 0) {
      const { copy, update, retain } = counts;
      const warnings = total === asked ? [] : [
        `The context of ${dims.maxPositions} tokens has room for ${total} demonstrations, not ${asked}: ` +
        `${copy} copy, ${update} update, ${retain} retain`,
      ];
      if (before.length - 1 < total) warnings.push(`The corpus has only ${before.length - 1} other records`);
      return { before, warnings };
    }
    const half = (n: number) => Math.floor(n / 2);
    counts = { copy: half(counts.copy), update: half(counts.update), retain: half(counts.retain) };
  }
}

/** In-context editing without demonstrations. */
export const ice = promptMethod<IceHparams>({
  name: "ice",
  summary: "ICE (KnowEdit's name for it): the fact alone in front, without demonstrations",
  schema: iceSchema,
  recipe: () => ({ hparams: {}, source: "The same for all models", known: true }),
  prepare: (model, hparams) => cosineScope(model, hparams, false),
  async make(model, requests, options) {
    const { scope, fact } = await memoryOf(model, requests, options);
    const facts = requests.map((request, i) =>
      fact(i, frontOf({ prompt: askedText(request), new: request.target.trim() }, []))
    );
    return { prompts: { scope, facts, answers: { kind: "base" } } };
  },
});
