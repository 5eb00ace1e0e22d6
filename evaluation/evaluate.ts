/**
 * A whole evaluation: a dataset's cases, a method, a protocol, a folder. What `emend eval` and the library's
 * `evaluate()` do.
 */
import { basename, join } from "node:path";
import manifest from "../deno.json" with { type: "json" };
import { findStatistics } from "../editors/find_statistics.ts";
import type { Hparams } from "../editors/hparams.ts";
import type { Method } from "../editors/methods.ts";
import type { Statistics } from "../editors/statistics.ts";
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import type { Dataset, EditCase } from "./cases.ts";
import { sampleCases } from "./datasets/read.ts";
import type { Budgets } from "./firewall.ts";
import { type ReadingPlan, requireFits } from "./readings.ts";
import type { Protocol, RunConfig, Summary } from "./records.ts";
import { isSequential, runCases, type RunOptions } from "./run.ts";
import { openRunFolder } from "./run_folder.ts";
import { summarise } from "./summarise.ts";

/** What to take beside teacher forcing and ranking, which every run has. */
export type Extra = "generate" | "drift" | "fluency";

/** Names of {@link Extra}. */
export const EXTRAS: readonly Extra[] = ["generate", "drift", "fluency"];

/** How to evaluate. */
export interface EvaluateOptions {
  method: Method;
  hparams: Hparams;
  /** Where they come from, a sentence for the run's record. */
  recipe: string;
  dataset: Dataset;
  /** So many cases; all without it. */
  limit?: number;
  /** Draws the cases with this seed and seeds the sampling; without it the first ones in order. */
  seed?: number;
  /** Edits made together; default 1. */
  batch?: number;
  /** Edits stay on the model. */
  sequential?: boolean;
  /** Default: `generate` and `drift`. */
  extras?: readonly Extra[];
  /** A firewall: every edit is taken back until it is within these, or not made. */
  budgets?: Budgets;
  /** Keep optimised targets on the disk, and take those that are there; see {@link RunOptions}. */
  cacheTargets?: boolean;
  /** Statistics files of the edited layers, where they are not beside the model or in the cache. */
  statistics?: readonly string[];
  /** The run's folder; a shard gets one of its own in it. */
  out: string;
  /** Go on with the run in the folder. */
  resume?: boolean;
  /** Only the index-th of so many parts, from 1. */
  shard?: RunConfig["shard"];
  /** The model's name in the record; default that of its folder or file. */
  modelName?: string;
  /** Told what the user should know, a sentence each. */
  note?: (text: string) => void;
  onProgress?: RunOptions["onProgress"];
}

/** The protocol that two flags make. */
export function protocolOf(batch: number, sequential: boolean): Protocol {
  if (sequential) return batch > 1 ? "sequential-batch" : "sequential";
  return batch > 1 ? "batch" : "single";
}

/** Where a run or a shard of it goes. */
export function runPath(out: string, shard: RunConfig["shard"]): string {
  return shard ? join(out, `shard-${shard.index}-of-${shard.of}`) : out;
}

/**
 * Runs an evaluation, or goes on with one.
 * @returns the summary that is also in the folder
 * @throws {InputError} for a folder that holds something else or another run, missing statistics or a missing
 *   editor or corpus, a sequential run in shards, a dataset of which nothing fits the model's context
 */
export async function evaluate(model: LoadedModel, options: EvaluateOptions): Promise<Summary> {
  const { method, hparams, batch = 1, sequential = false, shard, note = () => {} } = options;
  const start = performance.now();
  const protocol = protocolOf(batch, sequential);
  if (shard && isSequential(protocol)) {
    throw new InputError("A sequential run cannot be split: each edit stands on those before it");
  }
  const cases = thoseThatFit(model, sampleCases(options.dataset, options), note);
  const layers = method.statistics(hparams);
  using statistics = layers.length
    ? await findStatistics(model, layers, { files: options.statistics })
    : undefined;
  const extras = new Set<Extra>(options.extras ?? ["generate", "drift"]);
  const plan: ReadingPlan = { generate: extras.has("generate"), texts: extras.has("fluency") };
  const config = await configOf(model, cases, options, { protocol, statistics, extras });
  // What the edits need and cannot be had is told before there is a folder.
  await method.prepare(model, hparams, config.seed);
  using folder = await openRunFolder(runPath(options.out, shard), config, options.resume === true);
  const own = shareOf(cases, batch, shard);
  const there = own.filter(({ id }) => folder.lines.has(id)).length;
  if (there > 0) note(`going on: ${there} of ${own.length} cases are there already`);
  const { lines, retained } = await runCases(model, own, folder, {
    method,
    hparams,
    statistics,
    protocol,
    batch,
    seed: config.seed,
    plan,
    drift: extras.has("drift"),
    budgets: options.budgets,
    cacheTargets: options.cacheTargets,
    note,
    onProgress: options.onProgress,
  });
  const summary = summarise(config, lines, retained, { total_s: (performance.now() - start) / 1000 });
  await folder.finish(summary);
  return summary;
}

/** Leaves out, and names, cases that the model's context cannot hold. */
function thoseThatFit(
  model: LoadedModel,
  cases: readonly EditCase[],
  note: (text: string) => void,
): EditCase[] {
  const reasons: string[] = [];
  const fitting = cases.filter((one) => {
    try {
      requireFits(model, one);
      return true;
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      reasons.push(`line ${one.line}: ${error.message}`);
      return false;
    }
  });
  if (reasons.length) {
    note(
      `note: ${reasons.length} of ${cases.length} records do not fit ${model.name}; the first, ${reasons[0]}`,
    );
  }
  if (fitting.length === 0) throw new InputError("No record of the dataset fits the model's context");
  return fitting;
}

interface Resolved {
  protocol: Protocol;
  statistics?: Statistics;
  extras: ReadonlySet<Extra>;
}

async function configOf(
  model: LoadedModel,
  cases: readonly EditCase[],
  options: EvaluateOptions,
  { protocol, statistics, extras }: Resolved,
): Promise<RunConfig> {
  const { method, hparams, recipe, dataset, batch = 1, seed = 0, shard, budgets } = options;
  return {
    format: "emend-run",
    format_version: 1,
    emend_version: manifest.version,
    model: {
      name: options.modelName ?? basename(model.name),
      hash: await model.checkpoint.hash(),
      type: String(model.checkpoint.config.model_type),
    },
    method: method.name,
    hparams: { ...hparams },
    recipe,
    dataset: {
      name: dataset.name,
      layout: dataset.layout,
      hash: dataset.hash,
      cases: dataset.cases.length,
    },
    protocol,
    batch,
    readings: ["forced", ...EXTRAS.filter((extra) => extras.has(extra))],
    seed,
    ...(budgets ? { budgets: { ...budgets, keep: budgets.keep?.map(({ prompt }) => prompt) } } : {}),
    statistics: [...statistics?.layers.values() ?? []].map(({ layer, tokens, corpusName }) => (
      { layer, tokens, corpus: corpusName }
    )),
    adapter: model.gpu.description,
    indices: cases.map(({ index }) => index),
    ...(shard ? { shard } : {}),
  };
}

/** The cases of a shard: every n-th group of those that are edited together. */
function shareOf(cases: readonly EditCase[], batch: number, shard: RunConfig["shard"]): EditCase[] {
  if (!shard) return [...cases];
  return cases.filter((_, i) => Math.floor(i / batch) % shard.of === shard.index - 1);
}
