/** What methods that put prompts in front have in common as entries of the table of methods. */
import { basename } from "node:path";
import type { z } from "npm:zod@4.6.7";
import type { Edit } from "../edit.ts";
import { type Hparams, parseHparams, requireKeys } from "../hparams.ts";
import type { Method } from "../methods.ts";
import type { Recipe } from "../recipes.ts";
import { type EditRequest, fill, validateRequest } from "../requests.ts";
import { type EditOptions, romeTarget } from "../rome.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import type { PromptEdit } from "./edit.ts";

/** What differs. */
export interface PromptMethod<H extends Hparams> {
  name: string;
  summary: string;
  schema: z.ZodObject;
  recipe: (model: LoadedModel) => Recipe;
  /** Reads what edits need beside their requests. @throws {InputError} when some of it is not there or does not fit */
  prepare: (model: LoadedModel, hparams: H) => Promise<unknown>;
  /** Makes the memory of valid requests, and says what the user should know of it. */
  make: (
    model: LoadedModel,
    requests: readonly EditRequest[],
    options: EditOptions<H>,
  ) => Promise<{ prompts: PromptEdit; warnings?: string[][] }>;
}

/** A method whose edits are prompts in front. No weight changes and nothing is optimised: 0 steps, no loss. */
export function promptMethod<H extends Hparams>(
  { name, summary, schema, recipe, prepare, make }: PromptMethod<H>,
): Method<H> {
  return {
    name,
    summary,
    recipe,
    parse: (values, source) => parseHparams(schema, values, source) as { hparams: H; unknown: string[] },
    requireKeys: (keys) => requireKeys(name, schema, keys),
    statistics: () => [],
    prepare: async (model, hparams) => void await prepare(model, hparams),
    plan: (model, requests) => (
      { layer: 0, steps: 0, targets: requests.map((request) => romeTarget(model, request, [""])) }
    ),
    async run(model, requests, options): Promise<Edit> {
      const valid = requests.map((r, i) =>
        validateRequest(r, requests.length > 1 ? `Request ${i + 1}` : undefined)
      );
      const { prompts, warnings } = await make(model as LoadedModel, valid, options);
      options.onProgress?.(valid.length, valid.length);
      return {
        method: name,
        hparams: withoutFolders(options.hparams),
        requests: valid,
        deltas: [],
        prompts,
        outcomes: valid.map((_, i) => ({ steps: 0, losses: [], warnings: warnings?.[i] ?? [] })),
      };
    },
  };
}

/** Hyper-parameters without the folders of files: where a file lies is nobody else's business. */
function withoutFolders(hparams: Hparams): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(hparams).map(([key, value]) => [key, typeof value === "string" ? basename(value) : value]),
  );
}

/** A request's prompt with its subject. */
export function askedText({ prompt, subject }: EditRequest): string {
  return fill(prompt, subject).text;
}
