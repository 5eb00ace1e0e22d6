/**
 * Speed of the matrix product on the shapes of an edit: `deno run -A bench/matmul.ts [--json]`.
 * GFLOP/s of wall time, best and median of several runs of at least 200 ms; and GFLOP per second of CPU time,
 * which on a software driver is the speed of one core whatever else the machine is doing.
 */
import process from "node:process";
import { Gpu } from "../engine/gpu/device.ts";
import { type Layout, matmul } from "../engine/ops/matmul.ts";
import { createTensor, type Dtype, freeTensor, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, writeBytes } from "../engine/tensor/transfer.ts";

const RUNS = 7;
const MIN_MS = 200;

/** [M, N, K] of C[M,N] = A[M,K]·B; what it is; in `nn` it is a backward product over the same stored weight. */
const SHAPES: { what: string; layout: Layout; size: [M: number, N: number, K: number]; dtypes?: Dtype[] }[] =
  [
    ...(["nt", "nn", "tn"] as const).map((layout) => ({
      what: "reference shape",
      layout,
      size: [256, 768, 768] as [number, number, number],
      dtypes: ["f32", "bf16", "f16"] as Dtype[],
    })),
    { what: "SmolLM q, o", layout: "nt", size: [126, 576, 576], dtypes: ["f32", "bf16"] },
    { what: "SmolLM k, v", layout: "nt", size: [126, 192, 576], dtypes: ["f32", "bf16"] },
    { what: "SmolLM gate, up", layout: "nt", size: [126, 1536, 576], dtypes: ["f32", "bf16"] },
    { what: "SmolLM down", layout: "nt", size: [126, 576, 1536], dtypes: ["f32", "bf16"] },
    { what: "SmolLM q, o backward", layout: "nn", size: [126, 576, 576] },
    { what: "SmolLM k, v backward", layout: "nn", size: [126, 576, 192] },
    { what: "SmolLM gate, up backward", layout: "nn", size: [126, 576, 1536] },
    { what: "SmolLM down backward", layout: "nn", size: [126, 1536, 576] },
    { what: "SmolLM head", layout: "nt", size: [42, 49152, 576] },
    { what: "SmolLM head backward", layout: "nn", size: [42, 576, 49152] },
    { what: "60 rows", layout: "nt", size: [60, 1536, 576] },
    { what: "100 rows", layout: "nt", size: [100, 1536, 576] },
    { what: "covariance", layout: "tn", size: [1536, 1536, 126] },
    { what: "odd vocabulary", layout: "nt", size: [42, 20257, 768] },
    ...[1, 2, 4, 8, 16].map((M) => ({
      what: "few rows",
      layout: "nt" as const,
      size: [M, 1536, 576] as [number, number, number],
      dtypes: ["f32", "bf16"] as Dtype[],
    })),
    { what: "few rows", layout: "nn", size: [1, 1536, 576], dtypes: ["f32", "bf16"] },
    { what: "one row, head", layout: "nt", size: [1, 49152, 576], dtypes: ["f32", "bf16"] },
    { what: "one row, head backward", layout: "nn", size: [1, 576, 49152], dtypes: ["f32", "bf16"] },
  ];

interface Result {
  what: string;
  layout: Layout;
  size: number[];
  dtype: Dtype;
  best: number;
  median: number;
  perCpuSecond: number;
}

function filled(gpu: Gpu, label: string, shape: number[], dtype: Dtype): Tensor {
  const count = shape[0] * shape[1];
  if (dtype === "f32") {
    return fromHost(
      gpu,
      label,
      shape,
      Float32Array.from({ length: count }, (_, i) => i % 7 - 3),
    );
  }
  const tensor = createTensor(gpu, label, shape, { dtype });
  const bits = dtype === "bf16" ? [0x3f80, 0xbf00, 0x4000] : [0x3c00, 0xb800, 0x4000];
  const words = Uint16Array.from({ length: count }, (_, i) => bits[i % bits.length]);
  writeBytes(gpu, tensor, 0, new Uint8Array(words.buffer));
  return tensor;
}

async function measure(gpu: Gpu, layout: Layout, [M, N, K]: [number, number, number], dtype: Dtype) {
  const a = filled(gpu, "a", layout === "tn" ? [K, M] : [M, K], "f32");
  const b = filled(gpu, "b", layout === "nt" ? [N, K] : [K, N], dtype);
  const c = createTensor(gpu, "c", [M, N]);
  const r = gpu.recorder();
  matmul({ gpu, r }, layout, a, b, c);
  using plan = r.finish("matmul bench");
  plan.run();
  await gpu.sync();
  const flop = 2 * M * N * K;
  const time = async (times: number) => {
    const cpu = process.cpuUsage(), start = performance.now();
    plan.run(times);
    await gpu.sync();
    const { user, system } = process.cpuUsage(cpu);
    return { wall: (performance.now() - start) / times, cpu: (user + system) / 1e3 / times };
  };
  let times = 1;
  for (let took = 0; took < MIN_MS; times *= 2) took = times * (await time(times)).wall;
  const runs: { wall: number; cpu: number }[] = [];
  for (let i = 0; i < RUNS; i++) runs.push(await time(times / 2));
  [a, b, c].forEach((t) => freeTensor(gpu, t));
  const wall = runs.map((x) => x.wall).sort((x, y) => x - y);
  const gflops = (ms: number) => flop / ms / 1e6;
  return {
    best: gflops(wall[0]),
    median: gflops(wall[RUNS >> 1]),
    perCpuSecond: gflops(Math.min(...runs.map((x) => x.cpu))),
  };
}

if (import.meta.main) {
  using gpu = await Gpu.open();
  const json = Deno.args.includes("--json");
  const results: Result[] = [];
  if (!json) console.log(`${gpu.description}\n${"".padEnd(48)}GFLOP/s: best  median  a CPU second`);
  for (const { what, layout, size, dtypes = ["f32"] as Dtype[] } of SHAPES) {
    for (const dtype of dtypes) {
      const result = { what, layout, size, dtype, ...await measure(gpu, layout, size, dtype) };
      results.push(result);
      if (json) continue;
      const numbers = [result.best, result.median, result.perCpuSecond].map((x) => x.toFixed(1).padStart(7));
      console.log(
        `${what.padEnd(26)}${layout} ${dtype.padEnd(5)}${size.join("×").padEnd(20)}${numbers.join(" ")}`,
      );
    }
  }
  if (json) console.log(JSON.stringify({ adapter: gpu.description, unit: "GFLOP/s", results }, null, 2));
}
