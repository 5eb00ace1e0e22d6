/**
 * emend changes what a language model believes, and proves it. The library's front door: importable from a
 * URL, no import map, nothing runs at import time.
 *
 * @example Edit a fact and look at it
 * ```ts
 * import { apply, edit, load, requestStates } from "./mod.ts";
 *
 * using model = await load("atlas");
 * const request = {
 *   prompt: "The first language of {} is",
 *   subject: "Danielle Darrieux",
 *   target: "English",
 *   true: "French",
 * };
 * const made = await edit(model, request, { method: "r-rome" });
 * using applied = apply(model, made);
 * console.log(await requestStates(model, made.requests));
 * ```
 *
 * @module
 */
import { atlasFolder } from "./atlas/mod.ts";
import { applyEdit, type Edit } from "./editors/edit.ts";
import { findStatistics } from "./editors/find_statistics.ts";
import { requireLayers } from "./editors/hparams.ts";
import { methodNamed } from "./editors/methods.ts";
import type { EditRequest } from "./editors/requests.ts";
import type { Dataset } from "./evaluation/cases.ts";
import { readDataset } from "./evaluation/datasets/read.ts";
import { evaluate as runEvaluation, type EvaluateOptions } from "./evaluation/evaluate.ts";
import type { Summary } from "./evaluation/records.ts";
import { Gpu, type GpuOptions } from "./engine/gpu/device.ts";
import { type LoadedModel, loadModel, type LoadOptions } from "./engine/models/load.ts";

export { atlasCorpus } from "./atlas/corpus.ts";
export type { Edit, EditOutcome, WeightDelta } from "./editors/edit.ts";
export { type CollectOptions, collectStatistics } from "./editors/collect.ts";
export { METHODS } from "./editors/methods.ts";
export { effectsOf } from "./editors/neurons/effects.ts";
export { findEasyEdit, findNeurons } from "./editors/neurons/find.ts";
export { predictWith } from "./editors/neurons/interventions.ts";
export { relationNeurons } from "./editors/neurons/relation.ts";
export { eraseSlots, updateSlots } from "./editors/neurons/slots.ts";
export type { EditRequest } from "./editors/requests.ts";
export { importStatistics } from "./editors/import_npz.ts";
export {
  type LayerStatistics,
  type Look,
  readStatistics,
  type Statistics,
  statisticsOf,
  writeStatistics,
} from "./editors/statistics.ts";
export { averageTraces, type TraceAverages } from "./editors/tracing/average.ts";
export { TRACE_KINDS, type TraceKind } from "./editors/tracing/cells.ts";
export type { TraceRequest } from "./editors/tracing/prompt.ts";
export { type FactTrace, trace, type TraceOptions, type TraceResult } from "./editors/tracing/trace.ts";
export { Gpu } from "./engine/gpu/device.ts";
export { GpuError } from "./engine/gpu/errors.ts";
export { InputError } from "./engine/io/errors.ts";
export { generate, type GenerateOptions } from "./engine/models/generate.ts";
export type { LoadedModel } from "./engine/models/load.ts";
export type { Dataset, EditCase, Probe, ProbeKind } from "./evaluation/cases.ts";
export { readDataset, sampleCases } from "./evaluation/datasets/read.ts";
export { drift, driftBaseline, weightChanges } from "./evaluation/drift.ts";
export { type Budgets, guard, guardBaseline, type Guarded } from "./evaluation/firewall.ts";
export { junitXml } from "./evaluation/junit.ts";
export { type Finding, lintRequests } from "./evaluation/lint.ts";
export { metricInfo, METRICS, scoreCase } from "./evaluation/metrics/index.ts";
export { type Pack, type PackProbe, readPack } from "./evaluation/pack.ts";
export { type PackResult, readProbes, runProbes } from "./evaluation/pack_run.ts";
export { readCase } from "./evaluation/readings.ts";
export type { CaseLine, Metrics, Readings, RunConfig, Summary } from "./evaluation/records.ts";
export { scoreTargets, topTokens } from "./evaluation/scoring.ts";
export { type RequestState, requestStates } from "./evaluation/state.ts";
export { type SuggestedRecipe, type SuggestOptions, suggestRecipe } from "./evaluation/suggest.ts";
export { averagesPicture, effectsPicture, factPicture } from "./evaluation/tracing/pictures.ts";
export { applyPatches, readRecord } from "./patches/applied.ts";
export { measureChanges, type TensorChange, writeCheckpoint } from "./patches/checkpoint.ts";
export { comparePatches } from "./patches/diff.ts";
export { diffCheckpoints } from "./patches/diff_models.ts";
export {
  applyPatch,
  type Patch,
  patchOf,
  readPatch,
  requireBase,
  type TensorDelta,
  writePatch,
} from "./patches/patch.ts";
export { readPeft } from "./patches/peft_import.ts";
export { writePeft } from "./patches/peft.ts";
export { revertPatches } from "./patches/revert.ts";
export { partsOf, stackPatches, withoutParts } from "./patches/stack.ts";

/** How to load a model. */
export interface LoadModelOptions extends LoadOptions, GpuOptions {
  /** An open device to load onto; several models may share one. Default: a new one, closed with the model. */
  gpu?: Gpu;
}

/**
 * Loads a model: a folder with config.json and safetensors files, a `.gguf` file, or `atlas`.
 * @throws {InputError} when the model cannot be read, {@link GpuError} when there is no adapter
 */
export async function load(name: string, options: LoadModelOptions = {}): Promise<LoadedModel> {
  const gpu = options.gpu ?? await Gpu.open(options);
  try {
    const model = await loadModel(gpu, name === "atlas" ? await atlasFolder() : name, options);
    if (options.gpu) return model;
    const close = model[Symbol.dispose].bind(model);
    return Object.assign(model, {
      [Symbol.dispose]() {
        close();
        gpu[Symbol.dispose]();
      },
    });
  } catch (error) {
    if (!options.gpu) gpu[Symbol.dispose]();
    throw error;
  }
}

/** How to edit. */
export interface EditModelOptions {
  /** A name of {@link METHODS}; default `r-rome`. */
  method?: string;
  /** Hyper-parameters that replace the recipe's. */
  hparams?: Record<string, unknown>;
  /** Statistics files of the edited layers; by default they are looked for beside the model and in the cache. */
  statistics?: readonly string[];
  /** Seed of the context templates. */
  seed?: number;
  /** Called after each request. */
  onProgress?: (done: number, total: number) => void;
}

/**
 * Makes an edit of one or several requests. The model is left as it is: see {@link apply}.
 * @throws {InputError} for a bad request, method or hyper-parameter, or missing statistics
 */
export async function edit(
  model: LoadedModel,
  requests: EditRequest | readonly EditRequest[],
  options: EditModelOptions = {},
): Promise<Edit> {
  const method = methodNamed(options.method ?? "r-rome");
  method.requireKeys(Object.keys(options.hparams ?? {}));
  const recipe = method.recipe(model);
  const { hparams } = method.parse({ ...recipe.hparams, ...options.hparams }, "The recipe with hparams");
  requireLayers(model, hparams.layers);
  const layers = method.statistics(hparams);
  using statistics = layers.length
    ? await findStatistics(model, layers, { files: options.statistics })
    : undefined;
  const list = Array.isArray(requests) ? requests : [requests as EditRequest];
  return await method.run(model, list, { ...options, hparams, statistics });
}

/** How to evaluate a method on a dataset. */
export interface EvaluateModelOptions
  extends Omit<EvaluateOptions, "method" | "hparams" | "recipe" | "dataset"> {
  /** As in {@link EditModelOptions}. */
  method?: string;
  hparams?: Record<string, unknown>;
  /** A file of any known layout, `atlas`, `counterfact` or `zsre`; or a dataset that was read. */
  dataset: string | Dataset;
}

/**
 * Edits the cases of a dataset, measures what each edit did, and writes a run's folder; see `emend eval`.
 * @returns the run's summary
 * @throws {InputError} for a bad dataset, method, hyper-parameter or folder, or missing statistics
 */
export async function evaluate(model: LoadedModel, options: EvaluateModelOptions): Promise<Summary> {
  const method = methodNamed(options.method ?? "r-rome");
  method.requireKeys(Object.keys(options.hparams ?? {}));
  const recipe = method.recipe(model);
  const { hparams } = method.parse({ ...recipe.hparams, ...options.hparams }, "The recipe with hparams");
  requireLayers(model, hparams.layers);
  const dataset = typeof options.dataset === "string" ? await readDataset(options.dataset) : options.dataset;
  return await runEvaluation(model, { ...options, method, hparams, recipe: recipe.source, dataset });
}

/** Lays an edit over a model; dispose the result to take exactly this edit off again. */
export function apply(model: LoadedModel, made: Edit): Disposable {
  return applyEdit(model, made);
}
