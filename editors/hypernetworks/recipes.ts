/** Hyper-parameters of trainings by method and model. */
import recipes from "../recipes/training.json" with { type: "json" };
import type { ModelConfig } from "../../engine/io/config.ts";
import { publishedRecipe, type Recipe, type RecipeFile } from "../recipes.ts";

/** The recipe for exactly this model, else the authors' values with their last three layers. */
export function trainingRecipe(method: string, { config }: { config: ModelConfig }): Recipe {
  const own = (recipes as (RecipeFile & { method: string })[]).filter((recipe) => recipe.method === method);
  return publishedRecipe(own, config) ??
    {
      hparams: {},
      source: "No recipe for this model: the authors' values, and its last three layers",
      known: false,
    };
}
