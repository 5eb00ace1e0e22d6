/** `emend stats`: second moments of a layer's keys over a text corpus, for ROME and MEMIT. */
import { Command } from "npm:commander@15.1.0";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { atlasCorpus } from "../atlas/corpus.ts";
import { collectStatistics } from "../editors/collect.ts";
import { type CollectState, readCollectState, writeCollectState } from "../editors/collect_state.ts";
import { cachedStatisticsPath } from "../editors/find_statistics.ts";
import { readStatistics, writeStatistics } from "../editors/statistics.ts";
import { InputError } from "../engine/io/errors.ts";
import { number } from "./inputs.ts";
import { openSession } from "./model.ts";
import { checkOutput } from "./outputs.ts";
import { printJson, progress, seconds } from "./terminal.ts";

interface Flags {
  model: string;
  layers: string;
  corpus: string;
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
    .requiredOption("--layers <list>", "layers, for example 5 or 4,5,6")
    .requiredOption("--corpus <file>", "plain text, a document a line; or atlas, the corpus of that model")
    .option("--tokens <n>", "tokens at most", "200000")
    .option("--max-length <n>", "tokens of a document at most", "512")
    .option(
      "--converged <cos>",
      "stop when C⁻¹k turns less than this as the sample doubles; 1 never stops",
      "0.999",
    )
    .option("--out <path>", "a file for one layer, a folder for several; default the cache, where edit looks")
    .option("--save-every <s>", "seconds between two saves of the unfinished collection", "60")
    .option("--fresh", "start anew, whatever an interrupted run left")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nAn interrupted run goes on where it stopped.\n\nExample:\n" +
        "  deno run -A cli.ts stats --model SmolLM2.gguf --layers 10 --corpus wikitext.txt --tokens 100000",
    )
    .action((flags: Flags) => runStats(flags));
}

async function runStats(flags: Flags): Promise<void> {
  const given = flags.layers.split(",").map((text) => number("--layers", text.trim(), 0, 2047, true));
  const layers = [...new Set(given)];
  const tokens = number("--tokens", flags.tokens, 1, 1e12, true);
  const maxLength = number("--max-length", flags.maxLength, 1, 1e7, true);
  const converged = number("--converged", flags.converged, 0, 1);
  const saveEvery = number("--save-every", flags.saveEvery, 0, 1e6);
  const corpus = await openCorpus(flags.corpus);
  const chosen = flags.out === undefined ? undefined : outputs(flags.out, layers);
  for (const path of chosen ?? []) await checkOutput(path, "a statistics file", readStatistics);
  using session = await openSession(flags.model);
  const { model, gpu } = session;
  const bad = layers.find((l) => l >= model.dims.layers);
  if (bad !== undefined) throw new InputError(`There is no layer ${bad}: the model has ${model.dims.layers}`);
  const modelHash = await model.checkpoint.hash();
  const paths = chosen ??
    layers.map((layer) => cachedStatisticsPath(modelHash, layer, corpus.hash, maxLength));
  const partial = `${paths[0]}.partial`;
  const same = { modelHash, corpusHash: corpus.hash, maxLength, layers };
  const resume = flags.fresh ? undefined : await resumable(partial, same);
  if (resume) console.error(`note: going on from ${resume.tokens} tokens of an interrupted run`);

  using bar = progress("Collecting keys");
  const start = performance.now();
  let saved = start;
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
      if (performance.now() - saved < saveEvery * 1000) return;
      await writeCollectState(partial, await snapshot());
      saved = performance.now();
    },
  });
  bar[Symbol.dispose]();
  if (done[0].origin.tokens === 0) throw new InputError(`${flags.corpus} holds no text`);
  for (const [i, layer] of done.entries()) await writeStatistics(paths[i], layer);
  await Deno.remove(partial).catch(() => {});
  const time = (performance.now() - start) / 1000;
  const { tokens: seen, width } = done[0].origin;
  if (seen < width) {
    console.error(
      `note: ${seen} tokens cannot fill statistics of keys with ${width} numbers: edits will want more`,
    );
  }
  const report = done.map(({ origin }, i) => ({ ...origin, written: paths[i] }));
  if (flags.json) return printJson({ adapter: gpu.description, time_s: time, layers: report });
  for (const r of report) {
    const turn = r.convergence === undefined
      ? ""
      : `, C⁻¹k turned by cos ${r.convergence.toFixed(5)} in the last doubling`;
    console.log(`layer ${r.layer}: ${r.tokens} tokens of ${r.documents} documents${turn}`);
    console.log(`  ${r.written}`);
  }
  console.log(`time: ${seconds(time)}, ${(report[0].tokens / time).toFixed(0)} tokens/s`);
}

/** `--out`: a file for one layer, a folder for several. */
function outputs(out: string, layers: readonly number[]): string[] {
  return layers.length === 1 ? [out] : layers.map((layer) => join(out, `layer-${layer}.safetensors`));
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

interface Corpus {
  name: string;
  hash: string;
  documents(): AsyncGenerator<string>;
}

async function openCorpus(path: string): Promise<Corpus> {
  if (path === "atlas") {
    const hash = createHash("sha256");
    for (const text of atlasCorpus()) hash.update(text + "\n");
    return {
      name: "atlas",
      hash: hash.digest("hex"),
      async *documents() {
        yield* atlasCorpus();
      },
    };
  }
  const lines = async function* (): AsyncGenerator<string> {
    using file = await Deno.open(path);
    let rest = "";
    for await (const piece of file.readable.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + piece).split("\n");
      rest = parts.pop()!;
      for (const line of parts) if (line.trim()) yield line.trim();
    }
    if (rest.trim()) yield rest.trim();
  };
  const hash = createHash("sha256");
  try {
    using file = await Deno.open(path);
    for await (const piece of file.readable) hash.update(piece);
  } catch (error) {
    throw new InputError(
      `Cannot read the corpus ${path}: ${
        error instanceof Deno.errors.NotFound ? "there is no such file" : error
      }`,
    );
  }
  return { name: path.split("/").at(-1)!, hash: hash.digest("hex"), documents: lines };
}
