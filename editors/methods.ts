/** The editing methods by name: what `--method` and `edit()` know. */
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { calinet } from "./calinet.ts";
import { CLOSED_FORM } from "./closed_form_methods.ts";
import { contextPlan, contexts } from "./contexts.ts";
import type { Edit } from "./edit.ts";
import { FINE_TUNING } from "./finetune/methods.ts";
import { grace } from "./grace.ts";
import { type Hparams, nearest, parseHparams, requireKeys, type RomeHparams, romeSchema } from "./hparams.ts";
import { ice, ike } from "./ike.ts";
import { ke, keEfk } from "./ke.ts";
import { kn, knEasyEdit } from "./kn.ts";
import { type Recipe, romeRecipe } from "./recipes.ts";
import type { EditRequest } from "./requests.ts";
import { malmen } from "./malmen.ts";
import { melo } from "./melo.ts";
import { mend } from "./mend.ts";
import { serac, seracEasyEdit } from "./serac/serac.ts";
import { type EditOptions, rome, romeTarget, type RomeVariant } from "./rome.ts";
import { tPatcher } from "./t_patcher.ts";
import type { TargetRequest } from "./targets.ts";
import { ultraedit } from "./ultraedit.ts";
import { wise } from "./wise.ts";

/** What the optimisation of targets will do. */
export interface TargetPlan {
  layer: number;
  steps: number;
  targets: TargetRequest[];
  /** Device memory of targets optimised together, MiB; without it they follow one another. */
  work_mib?: number;
  /** Device bytes beside the weights, of a method that does not optimise targets and knows better than these tell. */
  workBytes?: number;
  /** Of a method that trains: all requests of an update at once, and what training holds beside their work. */
  training?: { together: number; deviceBytes: number; hostBytes: number };
}

/** One method, with the type of its hyper-parameters; they come from its own `parse` only. */
export interface Method<H extends Hparams = Hparams> {
  name: string;
  /** One line for `--help`. */
  summary: string;
  recipe(model: LoadedModel): Recipe;
  /** Completes and checks hyper-parameters. */
  parse(values: Record<string, unknown>, source: string): { hparams: H; unknown: string[] };
  /** @throws {InputError} for a hyper-parameter that the method does not have, with the nearest one */
  requireKeys(keys: readonly string[]): void;
  /** Layers whose key statistics are needed. */
  statistics(hparams: H): number[];
  /** Makes what edits need of the unedited model, before the first of several: context templates. */
  prepare(model: LoadedModel, hparams: H, seed: number): Promise<void>;
  /** What the optimisation will be given, with stand-ins for the contexts: for estimates. */
  plan(
    model: LoadedModel,
    requests: readonly EditRequest[],
    hparams: H,
  ): TargetPlan;
  run(model: LoadedModel, requests: readonly EditRequest[], options: EditOptions<H>): Promise<Edit>;
}

function romeMethod(name: RomeVariant, summary: string): Method<RomeHparams> {
  return {
    name,
    summary,
    recipe: (model) => romeRecipe(model.config),
    parse: (values, source) => parseHparams(romeSchema, values, source),
    requireKeys: (keys) => requireKeys(name, romeSchema, keys),
    statistics: (h) => h.mom2_adjustment ? h.layers : [],
    prepare: async (model, h, seed) => void await contexts(model, h.context_template_length_params, seed),
    plan(model, requests, { layers: [layer], v_num_grad_steps: steps, context_template_length_params }) {
      const texts = contextPlan(context_template_length_params);
      return { layer, steps, targets: requests.map((request) => romeTarget(model, request, texts)) };
    },
    run: (model, requests, options) => rome(model, requests, name, options),
  };
}

/** All methods, recommended ones first. */
export const METHODS: readonly Method[] = [
  romeMethod("r-rome", "R-ROME (Gupta et al. 2024): rank-one, the mean key throughout; recommended"),
  romeMethod("rome", "ROME (Meng et al. 2022): rank-one, as released, with its mixed keys"),
  romeMethod("p-rome", "p-ROME (Gupta et al. 2024): rank-one, the bare prompt's key throughout"),
  ...CLOSED_FORM,
  ultraedit,
  ...FINE_TUNING,
  kn,
  knEasyEdit,
  mend,
  malmen,
  ke,
  keEfk,
  grace,
  wise,
  melo,
  tPatcher,
  calinet,
  ike,
  ice,
  serac,
  seracEasyEdit,
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
