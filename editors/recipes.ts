/**
 * Recipes: reference hyper-parameters a model family, found from the model's config, not from its path. An
 * unknown model gets one scaled from its depth, and the caller says so aloud.
 */
import romeRecipes from "./recipes/rome.json" with { type: "json" };
import type { ModelConfig } from "../engine/io/config.ts";

/** Hyper-parameters with where they come from. */
export interface Recipe {
  hparams: Record<string, unknown>;
  /** A sentence for the user. */
  source: string;
  /** Written for exactly this model. */
  known: boolean;
}

/** An entry of a recipe file. */
export interface RecipeFile {
  match: Record<string, unknown>;
  model: string;
  source: string;
  hparams: Record<string, unknown>;
}

/** The recipe of a file that is for exactly this model, if there is one. */
export function publishedRecipe(file: readonly RecipeFile[], config: ModelConfig): Recipe | undefined {
  const values = config as unknown as Record<string, unknown>;
  const found = file.find(({ match }) =>
    Object.entries(match).every(([key, value]) => values[key] === value)
  );
  return found &&
    { hparams: found.hparams, source: `Recipe for ${found.model} (${found.source})`, known: true };
}

/** The recipe of ROME, R-ROME and p-ROME for a model. */
export function romeRecipe(config: ModelConfig): Recipe {
  const found = publishedRecipe(romeRecipes as RecipeFile[], config);
  if (found) return found;
  // The published GPT-2 layers lie at a third of the depth (8/24, 12/36, 17/48).
  const layer = Math.max(0, Math.round(config.layers / 3));
  return {
    hparams: { layers: [layer], ...(config.type === "llama" ? { v_weight_decay: 1e-3 } : {}) },
    source:
      `No recipe for this model: layer ${layer} of ${config.layers} by its depth, the rest as for GPT-2`,
    known: false,
  };
}
