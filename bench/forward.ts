/**
 * How much of the matrix product's speed a whole forward pass keeps: 64 rows of a model, against the same
 * products of the same weights alone, in turn in one run. Then the slowest kernels, and the host memory that
 * loading took beyond what the device holds.
 *
 * ```sh
 * deno run -A bench/forward.ts --model FILE [--rows 64] [--repeat 7] [--json]
 * ```
 */
import process from "node:process";
import { Command } from "npm:commander@15.1.0";
import { Gpu } from "../engine/gpu/device.ts";
import type { Plan } from "../engine/gpu/plan.ts";
import { type LoadedModel, loadModel } from "../engine/models/load.ts";
import { finalNorm, forward, weight } from "../engine/models/model.ts";
import { packRows } from "../engine/models/rows.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { linear, type Weight } from "../engine/ops/linear.ts";
import { logits } from "../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";

const TARGET = 70;
/** What one wait costs in Deno however short the work: measured 11.2 to 11.4 ms. */
const POLL_MS = 11.3;
const MIN_MS = 500;

const flags = new Command()
  .requiredOption("--model <path>")
  .option("--rows <n>", "", "64")
  .option("--repeat <n>", "", "7")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const MiB = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
const median = (xs: number[]) => xs.toSorted((a, b) => a - b)[xs.length >> 1];

/** Loads the model and watches this process's memory, which on a software driver holds the device's too. */
async function load(gpu: Gpu, path: string) {
  const rss = () => process.memoryUsage.rss();
  const [rss0, device0] = [rss(), gpu.memory.now];
  let beyond = 0;
  const model = await loadModel(gpu, path, {
    onProgress() {
      const device = gpu.class === "cpu" ? gpu.memory.now - device0 : 0;
      beyond = Math.max(beyond, rss() - rss0 - device);
    },
  });
  return { model, device: gpu.memory.now - device0, beyond };
}

/** The linear maps in the order in which a forward pass uses them; the head last. */
function linearMaps(model: LoadedModel): Weight[] {
  return [...model.weights.values()].filter((w) => w.role !== "head").concat(weight(model, "head"));
}

interface Time {
  wall: number;
  cpu: number;
}

/** Milliseconds of one run, by the clock and of this process's processors. */
async function time(gpu: Gpu, plan: Plan, times: number): Promise<Time> {
  const cpu = process.cpuUsage(), start = performance.now();
  plan.run(times);
  await gpu.sync();
  const { user, system } = process.cpuUsage(cpu);
  return { wall: (performance.now() - start - POLL_MS) / times, cpu: (user + system) / 1e3 / times };
}

using gpu = await Gpu.open();
const { model: loaded, device, beyond } = await load(gpu, flags.model);
using model = loaded;
const { dims, tokenizer } = model;
const R = Number(flags.rows);
if (!(R > 0 && R <= dims.maxPositions)) {
  throw new Error(`--rows is ${flags.rows}; 1 to ${dims.maxPositions} fit`);
}

const text = tokenizer.encode(
  "The capital of France is Paris, and the mother tongue of its people is French. ",
);
const ids = Array.from({ length: R }, (_, i) => text[i % text.length]);
using rows = packRows(gpu, [{ ids }], { windows: dims.windows });

function plans(head: boolean) {
  const whole: Ctx = { gpu, r: gpu.recorder() };
  const h = finalNorm(whole, model, forward(whole, model, rows));
  if (head) logits(whole, h, weight(model, "head"));
  const maps = linearMaps(model).filter((w) => head || w.role !== "head");
  const widths = new Set(maps.map((w) => w.in));
  const inputs = new Map([...widths].map((n) => [n, createTensor(gpu, `input ${n}`, [R, n])]));
  const bare: Ctx = { gpu, r: gpu.recorder() };
  for (const w of maps) linear(bare, inputs.get(w.in)!, { ...w, bias: undefined, overlays: [] });
  return {
    forward: whole.r.finish("forward"),
    bare: bare.r.finish("bare products"),
    flop: maps.reduce((sum, w) => sum + 2 * R * w.in * w.out, 0),
    free: () => inputs.forEach((t) => freeTensor(gpu, t)),
  };
}

async function measure(head: boolean) {
  const p = plans(head);
  for (const plan of [p.forward, p.bare]) await time(gpu, plan, 1);
  const once = await time(gpu, p.forward, 1);
  const times = Math.max(1, Math.ceil(MIN_MS / Math.max(once.wall, 0.1)));
  const samples: { forward: Time; bare: Time }[] = [];
  for (let i = 0; i < Number(flags.repeat); i++) {
    samples.push({ forward: await time(gpu, p.forward, times), bare: await time(gpu, p.bare, times) });
  }
  const profile = gpu.device.features.has("timestamp-query") ? await p.forward.profile() : [];
  const of = (what: "forward" | "bare", by: keyof Time) => median(samples.map((s) => s[what][by]));
  const result = {
    head,
    gflop: p.flop / 1e9,
    forwardMs: of("forward", "wall"),
    bareMs: of("bare", "wall"),
    /** Medians of the ratios of neighbours in time, so that a busy machine's moods cancel. */
    percent: 100 * median(samples.map((s) => s.bare.wall / s.forward.wall)),
    percentOfCpuTime: 100 * median(samples.map((s) => s.bare.cpu / s.forward.cpu)),
    dispatches: { forward: p.forward.length, bare: p.bare.length },
    profile,
  };
  p.forward.dispose();
  p.bare.dispose();
  p.free();
  return result;
}

const results = [await measure(false), await measure(true)];
if (flags.json) {
  const adapter = { description: gpu.description, class: gpu.class };
  const loading = { deviceBytes: device, hostBytesBeyond: beyond };
  console.log(
    JSON.stringify({ adapter, model: model.name, rows: R, target: TARGET, loading, results }, null, 2),
  );
} else {
  const where = gpu.class === "cpu" ? "process beyond the device's bytes" : "host process";
  console.log(`${gpu.description}\n${model.name}, ${R} rows`);
  console.log(`loading: ${MiB(device)} on the device, at most ${MiB(beyond)} in the ${where}`);
  for (const r of results) {
    const rate = (ms: number) => `${(r.gflop / ms * 1e3).toFixed(1)} GFLOP/s`;
    console.log(`\n${r.head ? "with" : "without"} the head: ${r.gflop.toFixed(1)} GFLOP in matrix products`);
    console.log(`  forward        ${r.forwardMs.toFixed(0)} ms  ${rate(r.forwardMs)}`);
    console.log(`  bare products  ${r.bareMs.toFixed(0)} ms  ${rate(r.bareMs)}`);
    console.log(
      `  ${r.percent.toFixed(0)} % of the bare rate (target ${TARGET} %)` +
        (gpu.class === "cpu" ? `, ${r.percentOfCpuTime.toFixed(0)} % by processor time` : ""),
    );
    const total = r.profile.reduce((sum, k) => sum + k.ms, 0);
    for (const { name, ms, dispatches } of r.profile.slice(0, 8)) {
      const share = (100 * ms / total).toFixed(1).padStart(5);
      console.log(`  ${share} %  ${ms.toFixed(1).padStart(7)} ms  ${name} ×${dispatches}`);
    }
  }
}
