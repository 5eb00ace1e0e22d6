/** Hyper-parameters of a method for a model: the recipe, then the user's file, then --set; later ones win. */
import { type Method, sameName } from "../editors/methods.ts";
import { type Hparams, requireLayers } from "../editors/hparams.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { parseSettings, readHparams } from "./inputs.ts";

/** What the user gave, read before the model is loaded. */
export interface GivenHparams {
  /** The model as the user names it, for error texts. */
  model?: string;
  file?: string;
  fileValues: Record<string, unknown>;
  settings: Record<string, unknown>;
}

/** The flags that carry hyper-parameters. */
export interface HparamFlags {
  model?: string;
  hparams?: string;
  set: string[];
  /** The hyper-parameter of that name. */
  editor?: string;
}

/** Reads the flags. @throws {InputError} for an unreadable file, or a key that the method does not have */
export async function readGivenHparams(method: Method, flags: HparamFlags): Promise<GivenHparams> {
  const fileValues = flags.hparams ? await readHparams(flags.hparams) : {};
  const settings = { ...parseSettings(flags.set), ...flags.editor ? { editor: flags.editor } : {} };
  method.requireKeys(Object.keys(settings));
  return { model: flags.model, file: flags.hparams, fileValues, settings };
}

/**
 * Completes them for a model.
 * @param note is told what the user should know: another method's file, unknown keys, a recipe by depth
 * @returns the hyper-parameters, and a sentence on where they come from
 * @throws {InputError} for a bad value, or a layer that the model does not have
 */
export function resolveHparams(
  method: Method,
  model: LoadedModel,
  { model: name = model.name, file, fileValues, settings }: GivenHparams,
  note: (text: string) => void,
): { hparams: Hparams; source: string } {
  const recipe = method.recipe(model);
  const source = file ? `Hyper-parameters from ${file}` : recipe.source;
  const { hparams, unknown } = method.parse(
    { ...recipe.hparams, ...fileValues, ...settings },
    [file ?? "The recipe", ...Object.keys(settings).length ? ["with --set"] : []].join(" "),
  );
  const { alg_name: other } = fileValues;
  if (typeof other === "string" && !sameName(other, method.name)) {
    note(`note: ${file} is for ${other}; its values are used for ${method.name}`);
  }
  for (const key of unknown) note(`note: ${file} has a key "${key}" that ${method.name} does not know`);
  if (!recipe.known && !file) note(`note: ${recipe.source}`);
  requireLayers({ name, dims: model.dims }, hparams.layers);
  return { hparams, source };
}
