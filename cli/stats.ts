/** `emend stats`: second moments of a layer's keys over a text corpus, for ROME and MEMIT. */
import { Command } from "npm:commander@15.1.0";
import { createHash } from "node:crypto";
import { atlasCorpus } from "../atlas/corpus.ts";
import { collectStatistics } from "../editors/collect.ts";
import { cachedStatisticsPath } from "../editors/find_statistics.ts";
import { type LayerStatistics, readStatistics, writeStatistics } from "../editors/statistics.ts";
import { checkWritable } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import { number } from "./generate.ts";
import { openSession } from "./model.ts";
import { printJson, progress, seconds } from "./terminal.ts";

interface Flags {
  model: string;
  layers: string;
  corpus: string;
  tokens: string;
  maxLength: string;
  converged: string;
  out?: string;
  fresh?: boolean;
  json?: boolean;
}

/** Seconds between two saves of an unfinished collection. */
const SAVE_EVERY = 60;

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
  const layers = flags.layers.split(",").map((text) => number("--layers", text.trim(), 0, 2047, true));
  const tokens = number("--tokens", flags.tokens, 1, 1e12, true);
  const maxLength = number("--max-length", flags.maxLength, 1, 1e7, true);
  const converged = number("--converged", flags.converged, 0, 1);
  const corpus = await openCorpus(flags.corpus);
  if (flags.out && layers.length === 1) await checkWritable(flags.out);
  using session = await openSession(flags.model);
  const { model, gpu } = session;
  const bad = layers.find((l) => l >= model.dims.layers);
  if (bad !== undefined) throw new InputError(`There is no layer ${bad}: the model has ${model.dims.layers}`);
  const modelHash = await model.checkpoint.hash();
  const paths = layers.map((layer) =>
    flags.out === undefined
      ? cachedStatisticsPath(modelHash, layer, corpus.hash, maxLength)
      : layers.length === 1
      ? flags.out
      : `${flags.out}/layer-${layer}.safetensors`
  );
  for (const path of paths) await Deno.mkdir(path.replace(/[^/]*$/, "") || ".", { recursive: true });
  const partials = paths.map((path) => `${path}.partial`);
  const resume = flags.fresh
    ? undefined
    : await resumable(partials, { modelHash, corpus: corpus.hash, maxLength, layers });
  if (resume) console.error(`note: going on from ${resume[0].origin.tokens} tokens of an interrupted run`);

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
      if (performance.now() - saved < SAVE_EVERY * 1000) return;
      const state = await snapshot();
      for (const [i, layer] of state.entries()) await writeStatistics(partials[i], layer);
      saved = performance.now();
    },
  });
  bar[Symbol.dispose]();
  if (done[0].origin.tokens === 0) throw new InputError(`${flags.corpus} holds no text`);
  for (const [i, layer] of done.entries()) {
    await writeStatistics(paths[i], layer);
    await Deno.remove(partials[i]).catch(() => {});
  }
  const time = (performance.now() - start) / 1000;
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

/** Partial files of exactly this collection, all at the same document. */
async function resumable(
  partials: string[],
  want: { modelHash: string; corpus: string; maxLength: number; layers: number[] },
): Promise<LayerStatistics[] | undefined> {
  try {
    const state = await Promise.all(partials.map(readStatistics));
    const same = state.every(({ origin }, i) =>
      origin.modelHash === want.modelHash && origin.corpusHash === want.corpus &&
      origin.layer === want.layers[i] &&
      origin.maxLength === want.maxLength && origin.documents === state[0].origin.documents
    );
    return same ? state : undefined;
  } catch {
    return undefined;
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
