/** MEMIT and its kin as methods: what `--method` and `edit()` know of them. */
import type { z } from "npm:zod@4.6.7";
import alphaEditRecipes from "./recipes/alphaedit.json" with { type: "json" };
import emmetRecipes from "./recipes/emmet.json" with { type: "json" };
import memitRecipes from "./recipes/memit.json" with { type: "json" };
import pmetRecipes from "./recipes/pmet.json" with { type: "json" };
import type { LoadedModel } from "../engine/models/load.ts";
import { ALPHAEDIT } from "./alphaedit.ts";
import { closedForm, CONTEXT_START } from "./closed_form.ts";
import {
  alphaEditSchema,
  type ClosedFormHparams,
  emmetReleasedSchema,
  emmetSchema,
  memitSchema,
  pmetSchema,
} from "./closed_form_hparams.ts";
import { contextPlan, contexts } from "./contexts.ts";
import { EMMET, EMMET_RELEASED } from "./emmet.ts";
import { parseHparams, requireKeys } from "./hparams.ts";
import { MEMIT, MEMIT_SEQ } from "./memit.ts";
import type { Method } from "./methods.ts";
import { PMET } from "./pmet.ts";
import { publishedRecipe, type Recipe, type RecipeFile, romeRecipe } from "./recipes.ts";
import { romeTarget } from "./rome.ts";
import type { ClosedForm } from "./spread.ts";

interface Kind<H extends ClosedFormHparams> {
  form: ClosedForm<H>;
  summary: string;
  schema: z.ZodObject;
  recipes: readonly RecipeFile[];
  /** Layers of a model without a recipe: five up to ROME's, or ROME's. */
  layers: 5 | 1;
}

function method<H extends ClosedFormHparams>(
  { form, summary, schema, recipes, layers }: Kind<H>,
): Method<H> {
  const { name } = form;
  return {
    name,
    summary,
    recipe: (model) => recipeOf(model, schema, recipes, layers),
    parse: (values, source) =>
      parseHparams(schema, values, source) as unknown as { hparams: H; unknown: string[] },
    requireKeys: (keys) => requireKeys(name, schema, keys),
    statistics: ({ layers }) => layers,
    async prepare(model, { context_template_length_params: lengths }, seed) {
      await contexts(model, lengths, seed, CONTEXT_START);
    },
    plan(model, requests, { layers, v_num_grad_steps: steps, context_template_length_params, work_mib }) {
      const texts = contextPlan(context_template_length_params);
      const targets = requests.map((request) => romeTarget(model, request, texts));
      return { layer: layers.at(-1)!, steps, targets, work_mib };
    },
    run: (model, requests, options) => closedForm(model, requests, form, options),
  };
}

/**
 * The published recipe, else ROME's layer with those below it, and λ as large as the key width: s = kᵀC⁻¹k is that
 * large for a typical key, and the published weights are 0.9 to 3 times as large (guide, section 0).
 */
function recipeOf(
  { config, dims }: LoadedModel,
  schema: z.ZodObject,
  recipes: readonly RecipeFile[],
  count: number,
): Recipe {
  const known = new Set(Object.keys(schema.shape));
  const own = (hparams: Record<string, unknown>) =>
    Object.fromEntries(Object.entries(hparams).filter(([key]) => known.has(key)));
  const found = publishedRecipe(recipes, config);
  if (found) return { ...found, hparams: own(found.hparams) };
  const rome = romeRecipe(config).hparams;
  const [last] = rome.layers as number[];
  const first = Math.max(0, last - count + 1);
  const layers = Array.from({ length: last - first + 1 }, (_, i) => first + i);
  const clamp = config.type === "llama" ? 4 : 0.75;
  return {
    hparams: own({ ...rome, layers, clamp_norm_factor: clamp, mom2_update_weight: dims.inner }),
    source: `No recipe for this model: layers ${layers.join(", ")} of ${config.layers} by its depth, ` +
      `λ = ${dims.inner} by its key width`,
    known: false,
  };
}

/** All of them, recommended ones first. */
export const CLOSED_FORM: readonly Method[] = [
  method({
    form: MEMIT,
    summary: "MEMIT (Meng et al. 2023): many facts at once, spread over several layers",
    schema: memitSchema,
    recipes: memitRecipes as RecipeFile[],
    layers: 5,
  }),
  method({
    form: ALPHAEDIT,
    summary: "AlphaEdit (Fang et al. 2025): as MEMIT, in the null space of ordinary text; for sequences",
    schema: alphaEditSchema,
    recipes: alphaEditRecipes as RecipeFile[],
    layers: 5,
  }),
  method({
    form: MEMIT_SEQ,
    summary: "MEMIT_seq: as MEMIT, keeping the keys of the edits before it in a sequence",
    schema: memitSchema,
    recipes: memitRecipes as RecipeFile[],
    layers: 5,
  }),
  method({
    form: PMET,
    summary: "PMET (Li et al. 2024): as MEMIT, with a share of its own for attention",
    schema: pmetSchema,
    recipes: pmetRecipes as RecipeFile[],
    layers: 5,
  }),
  method({
    form: EMMET,
    summary: "EMMET (Gupta et al. 2024): many facts in one layer, each met exactly",
    schema: emmetSchema,
    recipes: emmetRecipes as RecipeFile[],
    layers: 1,
  }),
  method({
    form: EMMET_RELEASED,
    summary: "EMMET as its code has it: MEMIT in one layer with another λ",
    schema: emmetReleasedSchema,
    recipes: emmetRecipes as RecipeFile[],
    layers: 1,
  }),
];
