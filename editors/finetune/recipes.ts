/** Recipes of fine-tuning: the published layers and constraints a model, else ones by its depth. */
import ftRecipes from "../recipes/ft.json" with { type: "json" };
import type { ModelConfig } from "../../engine/io/config.ts";
import type { Recipe } from "../recipes.ts";

interface FtRecipe {
  match: Record<string, unknown>;
  model: string;
  source: string;
  /** Without a constraint. */
  free: Record<string, unknown>;
  /** Within an L∞ ball. */
  constrained: Record<string, unknown>;
  lora?: Record<string, unknown>;
  adalora?: Record<string, unknown>;
}

function recipeOf(config: ModelConfig): FtRecipe | undefined {
  const values = config as unknown as Record<string, unknown>;
  return (ftRecipes as FtRecipe[]).find(({ match }) =>
    Object.entries(match).every(([key, value]) => values[key] === value)
  );
}

/** The recipe of one-layer fine-tuning for a model. */
export function ftRecipe(config: ModelConfig, kind: "free" | "constrained"): Recipe {
  const found = recipeOf(config);
  if (found) {
    return { hparams: found[kind], source: `Recipe for ${found.model} (${found.source})`, known: true };
  }
  // The published layers: 0 and 1 in GPT-2, two thirds up in LLaMA and its kin.
  const llama = config.type === "llama";
  const layer = llama ? Math.round(config.layers * 2 / 3) : kind === "free" ? 1 : 0;
  const within = Math.min(layer, config.layers - 1);
  return {
    hparams: { layers: [within], ...(kind === "constrained" ? { norm_constraint: 5e-4 } : {}) },
    source: `No recipe for this model: layer ${within} of ${config.layers}${
      kind === "constrained" ? " and the constraint of gpt2-xl" : ""
    }`,
    known: false,
  };
}

/** The recipe of LoRA and AdaLoRA: EasyEdit's modules of each family, and its rate where there is no better one. */
export function loraRecipe(config: ModelConfig, kind: "lora" | "adalora"): Recipe {
  const target_modules = config.type === "llama" ? ["q_proj", "v_proj"] : ["c_attn"];
  const found = recipeOf(config);
  const own = found?.[kind];
  if (found && own) {
    const hparams = { target_modules, ...own };
    return { hparams, source: `Recipe for ${found.model} (${found.source})`, known: true };
  }
  return { hparams: { target_modules }, source: `Recipe of EasyEdit for ${config.type}`, known: true };
}
