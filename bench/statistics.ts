/**
 * Collecting statistics of keys: tokens a second, and what the time goes into: the forward pass, the second
 * moment (its products and their two-float sum), and the rest (tokenising, recording, looks at C⁻¹k).
 *
 * ```sh
 * deno run -A bench/statistics.ts --model FILE --corpus FILE [--layers 10] [--tokens 8192] [--json]
 * ```
 *
 * `busy` is the process's CPU time over the number of cores: on a software driver, what an otherwise idle
 * machine would need. Kernels are compiled before the clock starts.
 */
import process from "node:process";
import { Command } from "npm:commander@15.1.0";
import { openCorpus } from "../cli/corpus.ts";
import { collectStatistics } from "../editors/collect.ts";
import { Gpu } from "../engine/gpu/device.ts";
import { SecondMoment } from "../engine/linalg/moment.ts";
import { loadModel } from "../engine/models/load.ts";
import { forward } from "../engine/models/model.ts";
import { packRows } from "../engine/models/rows.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost } from "../engine/tensor/transfer.ts";

/** Tokens of a batch, as in editors/collect.ts. */
const BATCH = 1024;
const REPEATS = 3;

const flags = new Command()
  .requiredOption("--model <path>")
  .requiredOption("--corpus <path>")
  .option("--layers <list>", "", "10")
  .option("--tokens <n>", "", "8192")
  .option("--max-length <n>", "", "512")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const layers: number[] = flags.layers.split(",").map(Number);
const tokens = Number(flags.tokens), maxLength = Number(flags.maxLength);

using gpu = await Gpu.open();
using model = await loadModel(gpu, flags.model);
const corpus = await openCorpus(flags.corpus);

function collect(tokens: number) {
  return collectStatistics(model, {
    layers,
    tokens,
    documents: corpus.documents(),
    corpus,
    modelHash: "",
    maxLength,
    converged: 1,
  });
}

/** Milliseconds of a batch's forward pass and of its second moments, apart from each other. */
async function parts() {
  const documents: { ids: number[] }[] = [];
  let count = 0;
  for await (const text of corpus.documents()) {
    const ids = model.tokenizer.encode(text).slice(0, maxLength);
    documents.push({ ids });
    if ((count += ids.length) >= BATCH) break;
  }
  using rows = packRows(gpu, documents, { windows: model.dims.windows });
  using stack = new DisposableStack();
  const moments = layers.map((l) => stack.use(new SecondMoment(gpu, `C of layer ${l}`, model.dims.inner)));
  const keys = fromHost(
    gpu,
    "keys",
    [count, model.dims.inner],
    Float32Array.from({ length: count * model.dims.inner }, (_, i) => Math.sin(i * (i % 1009))),
  );
  const forwards: Ctx = { gpu, r: gpu.recorder() };
  forward(forwards, model, rows, { to: Math.max(...layers) + 1 });
  const sums = gpu.recorder();
  moments.forEach((moment) => moment.add(sums, keys));
  using stacked = new DisposableStack();
  const plans = [forwards.r.finish("forward"), sums.finish("moments")].map((plan) => stacked.use(plan));
  const samples: Time[][] = [[], []];
  for (let i = 0; i <= REPEATS; i++) {
    for (const [p, plan] of plans.entries()) {
      const sample = await time(async () => {
        plan.run();
        await gpu.sync();
      });
      if (i > 0) samples[p].push(sample);
    }
  }
  freeTensor(gpu, keys);
  const [forwardTime, momentTime] = samples.map((s) => s.toSorted((a, b) => a.busy - b.busy)[REPEATS >> 1]);
  return { rows: count, forward: forwardTime, moments: momentTime };
}

interface Time {
  wall: number;
  busy: number;
}

/** Seconds by the clock, and of the processors. */
async function time(work: () => Promise<unknown>): Promise<Time> {
  const start = performance.now(), before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return {
    wall: (performance.now() - start) / 1e3,
    busy: (user + system) / 1e6 / navigator.hardwareConcurrency,
  };
}

await collect(BATCH);
const whole = await time(() => collect(tokens));
const batch = await parts();
const perToken = (t: Time) => t.busy / batch.rows;
const share = (t: Time) => 100 * perToken(t) * tokens / whole.busy;
const result = {
  adapter: gpu.description,
  model: model.name,
  layers,
  tokens,
  ...{ seconds: whole.wall, busy: whole.busy },
  tokens_per_second: { wall: tokens / whole.wall, busy: tokens / whole.busy },
  percent: { forward: share(batch.forward), moments: share(batch.moments) },
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const { wall, busy } = result.tokens_per_second;
  console.log(`${gpu.description}\n${model.name}, layers ${layers.join(", ")}, ${tokens} tokens`);
  console.log(`${whole.wall.toFixed(1)} s, ${wall.toFixed(0)} tokens/s; busy ${busy.toFixed(0)} tokens/s`);
  const { forward, moments } = result.percent;
  const rest = Math.max(0, 100 - forward - moments);
  console.log(
    `forward ${forward.toFixed(0)} %, second moments ${moments.toFixed(0)} %, the rest ${rest.toFixed(0)} %`,
  );
}
