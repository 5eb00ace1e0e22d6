/**
 * SERAC (Mitchell et al. 2022, "Memory-based model editing at scale"): edits are kept as texts. A scope classifier
 * tells whether a prompt is about one of them; then a counterfactual model answers from the edit in front of the
 * prompt, else the base does, to the same bits. Original objective and routing (guide sections 6.2 to 6.4):
 * similarity e^−D of the nearest memory above one half, that is D < ln 2.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import { frontOf } from "../ike_demonstrations.ts";
import { cosineScope } from "../prompts/cosine_scope.ts";
import type { PromptEdit, Scope } from "../prompts/edit.ts";
import { type Encoder, encoderOf } from "../prompts/encoders.ts";
import { askedText, promptMethod } from "../prompts/method.ts";
import { place } from "../prompts/scope.ts";
import { siblingAt } from "../prompts/sibling.ts";
import type { EditRequest } from "../requests.ts";
import { frontText } from "./data.ts";
import { findSerac, type FoundEditor, type SeracEditor } from "./file.ts";

export const seracSchema = z.object({
  /** No layer is edited. */
  layers: z.array(z.number()).max(0).default([]),
  /**
   * What tells whether a prompt is in scope: the trained `classifier`; an `encoder`'s cosine, where nothing was
   * trained; or the ablations `always` (the nearest edit answers every prompt) and `gold` (an oracle).
   */
  scope: z.enum(["classifier", "encoder", "always", "gold"]).default("classifier"),
  /**
   * What answers in scope: the base with the trained `adapter`; the `base` itself, frozen; or a smaller sibling, the
   * folder or file of a model over the same vocabulary.
   */
  counterfactual: z.string().min(1).default("adapter"),
  /** A trained editor's file; by default the one that belongs to the model. */
  editor: z.string().optional(),
  /** Of the scope `encoder`, as in IKE: which one, and a file of records to centre states on. */
  encoder: z.string().default("auto"),
  corpus: z.string().optional(),
  corpus_skip: z.number().int().min(0).default(0),
  /** Squared distance (classifier) below which, or cosine (encoder) from which on, a prompt is in scope. */
  limit: z.number().optional(),
  /** Of the scope `encoder`, as in IKE: by how much the nearest fact must stand out from the third nearest. */
  margin: z.number().min(0).max(2).optional(),
});

export type SeracHparams = z.infer<typeof seracSchema>;

/** The original's threshold: e^−D = 1/2. */
export const SCOPE_LIMIT = Math.LN2;

/** The memory's rule and the encoder behind it. */
async function scopeOf(
  model: LoadedModel,
  hparams: SeracHparams,
  found: FoundEditor | undefined,
): Promise<{ scope: Scope; encoder: Encoder }> {
  const rule = hparams.scope === "always" || hparams.scope === "gold" ? hparams.scope : "nearest";
  if (found && hparams.scope !== "encoder") {
    const { projection } = found.editor;
    const encoder = await encoderOf(model, found.editor.encoder);
    const limit = hparams.limit ?? SCOPE_LIMIT;
    return {
      encoder,
      scope: { rule, alone: false, encoder: encoder.name, measure: "distance", limit, projection },
    };
  }
  if (hparams.scope === "classifier") throw new InputError("The scope classifier needs a trained editor");
  const { encoder, measured } = await cosineScope(model, hparams, rule === "nearest");
  return { encoder, scope: { rule, alone: false, ...measured } };
}

const isAtlas = ({ config }: LoadedModel) =>
  config.type === "gpt2" && config.vocab === 4096 && config.layers === 6;

/** SERAC by the original's objective, answering with one model or the other. */
export const serac = promptMethod<SeracHparams>({
  name: "serac",
  summary: "SERAC (Mitchell et al. 2022): a memory of edits, a scope classifier, a counterfactual model",
  schema: seracSchema,
  recipe: (model) =>
    isAtlas(model) ? { hparams: {}, source: "Recipe for atlas (its trained editor)", known: true } : {
      hparams: { scope: "encoder", counterfactual: "base" },
      source:
        "No trained editor for this model: MiniLM tells the scope, the base answers with the edit in front",
      known: false,
    },
  prepare: (model, hparams) => partsOf(model, hparams, "serac"),
  make: (model, requests, { hparams }) => memory(model, requests, hparams, "serac"),
});

/** What tables made with EasyEdit call SERAC: another objective, and answers of both models mixed. */
export const seracEasyEdit = promptMethod<SeracHparams>({
  name: "serac-easyedit",
  summary: "SERAC as EasyEdit trains it: no objective for the scope, both models' answers mixed",
  schema: seracSchema.extend({
    scope: z.enum(["classifier", "always", "gold"]).default("classifier"),
    counterfactual: z.literal("adapter").default("adapter"),
  }),
  recipe: (model) => (
    { hparams: {}, source: "A trained editor of EasyEdit's objective", known: isAtlas(model) }
  ),
  prepare: (model, hparams) => partsOf(model, hparams, "serac-easyedit"),
  make: (model, requests, { hparams }) => memory(model, requests, hparams, "serac-easyedit"),
});

/** What tells the scope and what answers in it, whatever the edits are. */
async function partsOf(
  model: LoadedModel,
  hparams: SeracHparams,
  method: SeracEditor["method"],
): Promise<{ scope: Scope; encoder: Encoder; answers: PromptEdit["answers"] }> {
  const { counterfactual } = hparams;
  const trained = counterfactual === "adapter" || hparams.scope === "classifier";
  const found = trained ? await findSerac(model, method, hparams.editor) : undefined;
  return {
    ...await scopeOf(model, hparams, found),
    answers: counterfactual === "adapter"
      ? { kind: "adapter", editor: method, hash: found!.hash }
      : counterfactual === "base"
      ? { kind: "base" }
      : { kind: "sibling", ...await siblingAt(counterfactual) },
  };
}

async function memory(
  model: LoadedModel,
  requests: readonly EditRequest[],
  hparams: SeracHparams,
  method: SeracEditor["method"],
): Promise<{ prompts: PromptEdit }> {
  const { scope, encoder, answers } = await partsOf(model, hparams, method);
  const texts = requests.map(askedText);
  const embeddings = await place(encoder, scope, texts);
  const width = embeddings.length / texts.length;
  const adapter = answers.kind === "adapter";
  // A trained reader gets edit and label as the original has them. Others need to be told that what stands in
  // front is to be believed, as ICE tells them.
  const front = (text: string, target: string) =>
    adapter ? frontText(text, target) : frontOf({ prompt: text, new: target }, []);
  const prompts: PromptEdit = {
    scope: method === "serac-easyedit" ? { ...scope, soft: true } : scope,
    facts: texts.map((text, i) => ({
      text,
      front: front(text, requests[i].target.trim()),
      embedding: embeddings.slice(i * width, (i + 1) * width),
    })),
    answers,
  };
  return { prompts };
}
