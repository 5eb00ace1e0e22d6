/** `emend stats`: second moments of a layer's keys over a text corpus, for ROME and MEMIT. */
import { Command } from "npm:commander@15.1.0";
import { join } from "node:path";
import { collectStatistics } from "../editors/collect.ts";
import { type CollectState, readCollectState, writeCollectState } from "../editors/collect_state.ts";
import { cachedStatisticsPath, type CollectSettings } from "../editors/find_statistics.ts";
import { importStatistics } from "../editors/import_npz.ts";
import {
  type LayerStatistics,
  readOrigin,
  readStatistics,
  type StatisticsOrigin,
  writeStatistics,
} from "../editors/statistics.ts";
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { type Corpus, openCorpus } from "./corpus.ts";
import { number } from "./inputs.ts";
import { openSession } from "./model.ts";
import { checkOutput } from "./outputs.ts";
import { printStatistics } from "./stats_print.ts";
import { printJson, progress } from "./terminal.ts";

interface Flags {
  model: string;
  layers: string;
  corpus?: string;
  import?: string;
  tokens: string;
  maxLength: string;
  converged: string;
  saveEvery: string;
  out?: string;
  fresh?: boolean;
  json?: boolean;
}

export function statsCommand(): Command {
  return new Command("stats")
    .description("Collect the statistics of keys that ROME and its relatives need, once a model and layer")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .requiredOption("--layers <list>", "layers, for example 5 or 4,5,6: one pass for all")
    .option("--corpus <file>", "plain text, a document a line; or atlas, the corpus of that model")
    .option("--import <npz>", "instead of a corpus: the statistics of one layer that ROME's code has cached")
    .option("--tokens <n>", "tokens at most", "200000")
    .option("--max-length <n>", "tokens of a document at most", "512")
    .option(
      "--converged <cos>",
      "stop when the cosine of C⁻¹k of half of the sample and of all of it is above this; 1 never stops",
      "0.999",
    )
    .option("--out <path>", "a file for one layer, a folder for several; default the cache, where edit looks")
    .option("--save-every <s>", "seconds between two saves of the unfinished collection", "60")
    .option("--fresh", "start anew, whatever an earlier run left")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nAn interrupted run goes on where it stopped; a collection that is there already is not made again.\n" +
        "\nExample:\n" +
        "  deno run -A cli.ts stats --model SmolLM2.gguf --layers 10 --corpus wikitext.txt --tokens 100000",
    )
    .action((flags: Flags) => flags.import === undefined ? runStats(flags) : runImport(flags, flags.import));
}

/** What a run reports of one layer. */
export interface LayerReport extends StatisticsOrigin {
  written: string;
}

async function runStats(flags: Flags): Promise<void> {
  const layers = layersOf(flags);
  const tokens = number("--tokens", flags.tokens, 1, 1e12, true);
  const maxLength = number("--max-length", flags.maxLength, 1, 1e7, true);
  const converged = number("--converged", flags.converged, 0, 1);
  const saveEvery = number("--save-every", flags.saveEvery, 0, 1e6);
  if (flags.corpus === undefined) {
    throw new InputError("--corpus is missing", {
      hint: "Give a text file, or --import with what ROME cached",
    });
  }
  const corpus = await openCorpus(flags.corpus);
  const chosen = await outputs(flags, layers);
  using session = await openSession(flags.model);
  const { model, gpu } = session;
  checkLayers(model, layers);
  const modelHash = await model.checkpoint.hash();
  const settings = { corpusHash: corpus.hash, maxLength, tokens, converged };
  const paths = chosen ?? layers.map((layer) => cachedStatisticsPath(modelHash, layer, settings));
  const made = flags.fresh ? [] : await alreadyMade(paths, layers, modelHash, settings);
  const todo = layers.flatMap((layer, i) => made[i] ? [] : [{ layer, path: paths[i] }]);
  const start = performance.now();
  const { done, resumed } = todo.length
    ? await collect(model, todo, { ...settings, modelHash, corpus, saveEvery, fresh: flags.fresh })
    : { done: [], resumed: 0 };
  const time = (performance.now() - start) / 1000;
  const report = layers.map((layer, i): LayerReport => {
    const origin = made[i] ?? done.find((d) => d.origin.layer === layer)!.origin;
    return { ...origin, written: paths[i] };
  });
  if (flags.json) return printJson({ adapter: gpu.description, time_s: time, layers: report });
  printStatistics(report, {
    made: layers.filter((_, i) => made[i]),
    seconds: time,
    tokens: (done[0]?.origin.tokens ?? resumed) - resumed,
  });
}

/** Collects and writes the layers of one pass. */
async function collect(
  model: LoadedModel,
  todo: readonly { layer: number; path: string }[],
  options: CollectSettings & { modelHash: string; corpus: Corpus; saveEvery: number; fresh?: boolean },
): Promise<{ done: LayerStatistics[]; resumed: number }> {
  const { modelHash, corpus, maxLength, tokens, converged } = options;
  const layers = todo.map(({ layer }) => layer);
  const partial = `${todo[0].path}.partial`;
  const same = { modelHash, corpusHash: corpus.hash, maxLength, layers };
  const resume = options.fresh ? undefined : await resumable(partial, same);
  if (resume) console.error(`note: going on from ${resume.tokens} tokens of an interrupted run`);
  using bar = progress("Collecting keys");
  let saved = performance.now();
  const done = await collectStatistics(model, {
    layers,
    tokens,
    documents: corpus.documents(),
    corpus: { name: corpus.name, hash: corpus.hash },
    modelHash,
    maxLength,
    converged,
    resume,
    async onBatch(at, snapshot) {
      bar.update(at.tokens, tokens);
      if (performance.now() - saved < options.saveEvery * 1000) return;
      await writeCollectState(partial, await snapshot());
      saved = performance.now();
    },
  });
  const { tokens: seen, width } = done[0].origin;
  if (seen === 0) throw new InputError(`${corpus.path} holds no text`);
  for (const [i, layer] of done.entries()) await writeStatistics(todo[i].path, layer);
  await Deno.remove(partial).catch(() => {});
  if (seen < width) {
    console.error(
      `note: ${seen} tokens cannot fill statistics of keys with ${width} numbers: edits will want more`,
    );
  }
  return { done, resumed: resume?.tokens ?? 0 };
}

/** Takes over what ROME's code has cached. */
async function runImport(flags: Flags, npz: string): Promise<void> {
  const layers = layersOf(flags);
  if (flags.corpus !== undefined) throw new InputError("--import and --corpus exclude each other");
  if (layers.length !== 1) {
    throw new InputError(`--import wants one layer, got ${layers.length}: a file holds one`);
  }
  const chosen = await outputs(flags, layers);
  using session = await openSession(flags.model);
  const { model } = session;
  checkLayers(model, layers);
  const { dims } = model;
  const statistics = await importStatistics(npz, {
    modelHash: await model.checkpoint.hash(),
    modelName: model.name,
    layer: layers[0],
    width: dims.inner,
    maxLength: dims.maxPositions,
  });
  const { modelHash, corpusHash, tokens } = statistics.origin;
  const settings = { corpusHash, maxLength: dims.maxPositions, tokens, converged: 1 };
  const [path] = chosen ?? [cachedStatisticsPath(modelHash, layers[0], settings)];
  await writeStatistics(path, statistics);
  const report = [{ ...statistics.origin, written: path }];
  if (flags.json) return printJson({ layers: report });
  printStatistics(report, { made: [] });
}

function layersOf(flags: Flags): number[] {
  const given = flags.layers.split(",").map((text) => number("--layers", text.trim(), 0, 2047, true));
  return [...new Set(given)];
}

function checkLayers(model: LoadedModel, layers: readonly number[]): void {
  const bad = layers.find((l) => l >= model.dims.layers);
  if (bad !== undefined) throw new InputError(`There is no layer ${bad}: the model has ${model.dims.layers}`);
}

/** `--out`: a file for one layer, a folder for several; checked before any work. */
async function outputs({ out }: Flags, layers: readonly number[]): Promise<string[] | undefined> {
  if (out === undefined) return undefined;
  const paths = layers.length === 1 ? [out] : layers.map((layer) => join(out, `layer-${layer}.safetensors`));
  for (const path of paths) await checkOutput(path, "a statistics file", readStatistics);
  return paths;
}

/** The origin of each layer whose file is there and is of exactly this collection. */
async function alreadyMade(
  paths: readonly string[],
  layers: readonly number[],
  modelHash: string,
  { corpusHash, maxLength, tokens, converged }: CollectSettings,
): Promise<(StatisticsOrigin | undefined)[]> {
  const origins = await Promise.all(paths.map((path) => readOrigin(path).catch(() => undefined)));
  return origins.map((o, i) =>
    o?.modelHash === modelHash && o.layer === layers[i] && o.corpusHash === corpusHash &&
      o.maxLength === maxLength && o.settings?.tokens === tokens && o.settings.converged === converged
      ? o
      : undefined
  );
}

/** What an interrupted run of exactly this collection left, if any. */
async function resumable(
  path: string,
  same: Pick<CollectState, "modelHash" | "corpusHash" | "maxLength" | "layers">,
): Promise<CollectState | undefined> {
  try {
    const state = await readCollectState(path);
    const { modelHash, corpusHash, maxLength, layers } = state;
    const fits = JSON.stringify({ modelHash, corpusHash, maxLength, layers }) === JSON.stringify(same);
    return fits ? state : undefined;
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}
