/**
 * Recipes of the methods that put something beside the weights. Their thresholds are distances between
 * activations and do not go from model to model (guide section 15.1): an entry is the result of `emend recipe
 * calibrate` on that model, with the rule in its source. A model that has none gets the layer by its depth, and
 * must be calibrated.
 */
import graceRecipes from "../recipes/grace.json" with { type: "json" };
import meloRecipes from "../recipes/melo.json" with { type: "json" };
import wiseRecipes from "../recipes/wise.json" with { type: "json" };
import type { ModelConfig } from "../../engine/io/config.ts";
import { publishedRecipe, type Recipe, type RecipeFile } from "../recipes.ts";

const FILES = {
  grace: graceRecipes as RecipeFile[],
  wise: wiseRecipes as RecipeFile[],
  melo: meloRecipes as RecipeFile[],
};

/** Published layers by relative depth: guide section 15.1. */
const DEPTH = { grace: 35 / 48, wise: 27 / 32, melo: 34 / 48 };

/** The recipe of a method for a model. */
export function besideRecipe(config: ModelConfig, name: keyof typeof FILES): Recipe {
  const found = publishedRecipe(FILES[name], config);
  if (found) return found;
  const layer = Math.min(config.layers - 2, Math.round(config.layers * DEPTH[name]));
  return {
    hparams: name === "melo"
      ? { grace_layer: layer - 1, layers: [layer, layer + 1] }
      : { layers: [Math.max(0, layer)] },
    source: `No recipe for this model: layer ${layer} of ${config.layers} by its depth`,
    known: false,
  };
}
