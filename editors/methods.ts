/** The editing methods by name: what `--method` and `edit()` know. */
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import type { Edit } from "./edit.ts";
import { nearest, parseHparams, type RomeHparams, romeSchema } from "./hparams.ts";
import { type Recipe, romeRecipe } from "./recipes.ts";
import type { EditRequest } from "./requests.ts";
import { type EditOptions, rome, type RomeVariant } from "./rome.ts";

/** One method. */
export interface Method {
  name: string;
  /** One line for `--help`. */
  summary: string;
  recipe(model: LoadedModel): Recipe;
  /** Completes and checks hyper-parameters. */
  parse(values: Record<string, unknown>, source: string): { hparams: RomeHparams; unknown: string[] };
  /** @throws {InputError} for a hyper-parameter that the method does not have, with the nearest one */
  requireKeys(keys: readonly string[]): void;
  /** Layers whose key statistics are needed. */
  statistics(hparams: RomeHparams): number[];
  run(model: LoadedModel, requests: readonly EditRequest[], options: EditOptions<RomeHparams>): Promise<Edit>;
}

function romeMethod(name: RomeVariant, summary: string): Method {
  return {
    name,
    summary,
    recipe: (model) => romeRecipe(model.config),
    parse: (values, source) => parseHparams(romeSchema, values, source),
    requireKeys(keys) {
      const known = Object.keys(romeSchema.shape);
      const key = keys.find((key) => !known.includes(key));
      if (key === undefined) return;
      const guess = nearest(key, known);
      throw new InputError(`${name} has no hyper-parameter "${key}"`, {
        hint: guess ? `Did you mean ${guess}?` : `It has ${known.join(", ")}`,
      });
    },
    statistics: (h) => h.mom2_adjustment ? h.layers : [],
    run: (model, requests, options) => rome(model, requests, name, options),
  };
}

/** All methods, recommended ones first. */
export const METHODS: readonly Method[] = [
  romeMethod("r-rome", "R-ROME (Gupta et al. 2024): rank-one, the mean key throughout; recommended"),
  romeMethod("rome", "ROME (Meng et al. 2022): rank-one, as released, with its mixed keys"),
  romeMethod("p-rome", "p-ROME (Gupta et al. 2024): rank-one, the bare prompt's key throughout"),
];

/** Whether two spellings name one method: "R-ROME", "r_rome" and "rrome" do. */
export function sameName(a: string, b: string): boolean {
  const bare = (name: string) => name.toLowerCase().replace(/[-_]/g, "");
  return bare(a) === bare(b);
}

/** @throws {InputError} for an unknown name, with the nearest one */
export function methodNamed(name: string): Method {
  const found = METHODS.find((m) => sameName(m.name, name));
  if (found) return found;
  const names = METHODS.map((m) => m.name);
  const guess = nearest(name, names);
  throw new InputError(`Unknown method "${name}"`, {
    hint: guess ? `Did you mean ${guess}?` : `emend has ${names.join(", ")}`,
  });
}
