/** What the methods that put something beside the weights have in common as methods. */
import type { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import type { Edit } from "../edit.ts";
import { type Hparams, parseHparams, requireKeys, requireLayers } from "../hparams.ts";
import type { Method } from "../methods.ts";
import type { Recipe } from "../recipes.ts";
import { type EditRequest, tokeniseRequest, validateRequest } from "../requests.ts";
import type { EditOptions } from "../rome.ts";
import type { Example } from "../finetune/train.ts";

/** One method. */
export interface Beside<S extends z.ZodObject> {
  name: string;
  summary: string;
  schema: S;
  recipe(model: LoadedModel): Recipe;
  /** A hyper-parameter that must be measured on each model, by `recipe calibrate`. */
  measured?: string;
  /** Steps an edit at most, for estimates. */
  steps(hparams: z.infer<S>): number;
  /** Makes what edits need of the unedited model. */
  prepare?(model: LoadedModel, hparams: z.infer<S>, seed: number): Promise<void>;
  /** @param requests validated ones, with their token ids */
  edit(
    model: LoadedModel,
    requests: readonly EditRequest[],
    examples: readonly Example[],
    options: EditOptions<z.infer<S>>,
  ): Promise<Omit<Edit, "method" | "hparams" | "requests">>;
}

/** Makes it a method. */
export function besideMethod<S extends z.ZodObject>(
  { name, summary, schema, recipe, measured, steps, prepare, edit }: Beside<S>,
): Method<z.infer<S> & Hparams> {
  type H = z.infer<S> & Hparams;
  return {
    name,
    summary,
    recipe,
    parse(values, source) {
      if (measured !== undefined && values[measured] === undefined) {
        throw new InputError(`${source} has no ${measured}, which differs from model to model`, {
          hint:
            `Measure it with: emend recipe calibrate --method ${name}, or give it with --set ${measured}=…`,
        });
      }
      return parseHparams(schema, values, source) as { hparams: H; unknown: string[] };
    },
    requireKeys: (keys) => requireKeys(name, schema, keys),
    statistics: () => [],
    prepare: async (model, hparams, seed) => await prepare?.(model, hparams, seed),
    plan(model, requests, hparams) {
      const targets = requests.map((request) => {
        const { prompt, target } = tokeniseRequest(model, validateRequest(request));
        // All rows are computed at every step, from the layer on.
        return { prompts: [{ ...prompt, subjectLast: 0 }], target, kl: { ...prompt, subjectLast: 0 } };
      });
      return { layer: Math.min(...hparams.layers), steps: steps(hparams), targets };
    },
    async run(model, requests, options) {
      const { hparams, onProgress } = options;
      requireLayers(model, hparams.layers);
      const valid = requests.map((r, i) =>
        validateRequest(r, requests.length > 1 ? `Request ${i + 1}` : undefined)
      );
      const examples = valid.map((request) => {
        const { prompt: { ids }, target } = tokeniseRequest(model, request);
        return { prompt: ids, target };
      });
      const made = await edit(model, valid, examples, options);
      onProgress?.(valid.length, valid.length);
      return { method: name, hparams: { ...hparams }, requests: valid, ...made };
    },
  };
}
