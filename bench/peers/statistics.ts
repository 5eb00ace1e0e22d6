/**
 * Statistics of keys, ours and PyTorch's, in turn in one go: same model, same token ids, same layers, f32, same
 * number of threads. The peer goes both ways of statistics_torch.py: the authors' (a pass a layer) and all
 * layers in one pass. The tokens are cut into parts; a part is done by each in turn, and ratios are medians over
 * the parts. Prints tokens a second, the ratios (ours over the peer's speed) and how far the sums agree.
 *
 *   deno run -A bench/peers/statistics.ts --gguf FILE --corpus FILE --python PYTHON [--layers 10]
 *     [--tokens 8192] [--parts 4] [--max-length 512] [--threads 2] [--json]
 *
 * Two clocks: the wall's, and `busy`, the processors' time over the cores, which says more where other work
 * shares them. Compiling and the peer's first batch are outside of both.
 */
import process from "node:process";
import { Command } from "npm:commander@15.1.0";
import { openCorpus } from "../../cli/corpus.ts";
import { collectStatistics } from "../../editors/collect.ts";
import type { LayerStatistics } from "../../editors/statistics.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { Peer } from "./peer.ts";

const flags = new Command()
  .requiredOption("--gguf <file>")
  .requiredOption("--corpus <file>")
  .option("--python <command>", "", "python3")
  .option("--layers <list>", "", "10")
  .option("--tokens <n>", "", "8192")
  .option("--parts <n>", "", "4")
  .option("--max-length <n>", "", "512")
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const layers: number[] = flags.layers.split(",").map(Number);
const maxLength = Number(flags.maxLength);
/** As in editors/collect.ts. */
const WARM_UP = 1024;

interface Run {
  seconds: number;
  busy: number;
}

/** What the peer answers to one part. */
interface Sums {
  seconds: number;
  cpu_seconds: number;
  diagonals: Record<string, number[]>;
  rows: Record<string, number[]>;
}

async function theirs(peer: Peer, way: "authors" | "one-pass", documents: number[][]): Promise<Run & Sums> {
  const got = await peer.ask<Sums>({ way, layers, documents, limit: 3 * maxLength });
  return { ...got, busy: got.cpu_seconds / Number(flags.threads) };
}

/** Ours over one part; its documents are given by their ids. */
async function ours(model: LoadedModel, documents: number[][]): Promise<Run & { made: LayerStatistics[] }> {
  const tokenizer = { encode: (index: string) => documents[Number(index)] } as LoadedModel["tokenizer"];
  const start = performance.now(), before = process.cpuUsage();
  const made = await collectStatistics(Object.create(model, { tokenizer: { value: tokenizer } }), {
    layers,
    tokens: Infinity,
    documents: documents.map((_, i) => `${i}`),
    corpus: { name: "", hash: "" },
    modelHash: "",
    maxLength,
    converged: 1,
  });
  const { user, system } = process.cpuUsage(before);
  return {
    seconds: (performance.now() - start) / 1e3,
    busy: (user + system) / 1e6 / Number(flags.threads),
    made,
  };
}

/** Documents of `tokens` ids altogether, one list a part. */
async function cut(model: LoadedModel, tokens: number, parts: number): Promise<number[][][]> {
  const made: number[][][] = [[]];
  const each = Math.floor(tokens / parts);
  let room = each;
  for await (const text of (await openCorpus(flags.corpus)).documents()) {
    const ids = model.tokenizer.encode(text).slice(0, Math.min(maxLength, room));
    made.at(-1)!.push(ids);
    if ((room -= ids.length) > 0) continue;
    if (made.length === parts) return made;
    made.push([]);
    room = each;
  }
  throw new Error(`The corpus has fewer than ${tokens} tokens`);
}

/** The largest difference of the sums' diagonals and first rows, relative to the roots of the diagonal. */
function difference(
  made: LayerStatistics[],
  peer: Sums,
) {
  let most = 0;
  for (const { origin: { layer, tokens }, lower } of made) {
    const diagonal = peer.diagonals[layer], row = peer.rows[layer];
    const size = (i: number) => Math.sqrt(diagonal[i]);
    for (let i = 0; i < diagonal.length; i++) {
      const onDiagonal = lower[i * (i + 3) / 2] * tokens, inFirst = lower[i * (i + 1) / 2] * tokens;
      most = Math.max(
        most,
        Math.abs(onDiagonal - diagonal[i]) / diagonal[i],
        Math.abs(inFirst - row[i]) / (size(0) * size(i)),
      );
    }
  }
  return most;
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

using gpu = await Gpu.open();
using model = await loadModel(gpu, flags.gguf);
const parts = await cut(model, Number(flags.tokens), Number(flags.parts));
const peer = new Peer(flags.python, "statistics_torch.py", [
  "--gguf",
  flags.gguf,
  "--threads",
  flags.threads,
]);
const { torch } = await peer.read<{ torch: string }>();
const [warm] = await cut(model, WARM_UP, 1);
await ours(model, warm);
const ways = ["authors", "one-pass"] as const;
for (const way of ways) await theirs(peer, way, warm);

const runs: { ours: Run; authors: Run; "one-pass": Run; difference: number }[] = [];
for (const documents of parts) {
  const mine = await ours(model, documents);
  const authors = await theirs(peer, "authors", documents);
  const onePass = layers.length > 1 ? await theirs(peer, "one-pass", documents) : authors;
  const run = ({ seconds, busy }: Run) => ({ seconds, busy });
  runs.push({
    ours: run(mine),
    authors: run(authors),
    "one-pass": run(onePass),
    difference: difference(mine.made, authors),
  });
}
await peer.close();

const perPart = Math.floor(Number(flags.tokens) / parts.length);
const speed = (who: "ours" | typeof ways[number]) => ({
  wall: perPart / median(runs.map((r) => r[who].seconds)),
  busy: perPart / median(runs.map((r) => r[who].busy)),
});
const ratio = (way: typeof ways[number]) => ({
  wall: median(runs.map((r) => r[way].seconds / r.ours.seconds)),
  busy: median(runs.map((r) => r[way].busy / r.ours.busy)),
});
const result = {
  date: new Date().toISOString().slice(0, 10),
  adapter: gpu.description,
  torch,
  layers,
  tokens: Number(flags.tokens),
  tokens_per_second: { ours: speed("ours"), authors: speed("authors"), one_pass: speed("one-pass") },
  ratio: { authors: ratio("authors"), one_pass: ratio("one-pass") },
  largest_difference: Math.max(...runs.map((r) => r.difference)),
  load: Deno.loadavg()[0],
  parts: runs,
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  console.log(`${gpu.description}, PyTorch ${torch}, layers ${layers.join(", ")}, ${flags.tokens} tokens`);
  const line = (who: string, { wall, busy }: { wall: number; busy: number }, digits: number) =>
    console.log(
      `${who.padEnd(34)} ${wall.toFixed(digits).padStart(8)} wall ${busy.toFixed(digits).padStart(8)} busy`,
    );
  line("tokens/s, emend", result.tokens_per_second.ours, 0);
  line("tokens/s, PyTorch, a pass a layer", result.tokens_per_second.authors, 0);
  line("tokens/s, PyTorch, one pass", result.tokens_per_second.one_pass, 0);
  line("ratio to a pass a layer", result.ratio.authors, 2);
  line("ratio to one pass", result.ratio.one_pass, 2);
  console.log(`sums agree to ${result.largest_difference.toExponential(1)}; load ${result.load.toFixed(1)}`);
}
