/**
 * Times of the solvers: second moment, factorisation, solves.
 *
 *     deno run -A bench/linalg.ts [largest n, default 3072]
 *
 * Prints medians. `busy` is the process's CPU time over the number of cores: on a software driver, what an
 * otherwise idle machine would need; `wall` is what this machine took.
 */
import process from "node:process";
import { Gpu } from "../engine/gpu/device.ts";
import { factorSpd, type Route } from "../engine/linalg/cholesky.ts";
import { SecondMoment } from "../engine/linalg/moment.ts";
import { fromHost } from "../engine/tensor/transfer.ts";

const largest = Number(Deno.args[0] ?? 3072);
const TOKENS = 2048;
const REPEATS = 3;
const MANY = 100;

interface Timing {
  wall: number;
  busy: number;
}

/** Medians over the repeats, after one run that compiles. */
async function time(work: () => Promise<void>): Promise<Timing> {
  await work();
  const runs: Timing[] = [];
  for (let i = 0; i < REPEATS; i++) {
    const start = performance.now();
    const before = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(before);
    runs.push({
      wall: performance.now() - start,
      busy: (user + system) / 1000 / navigator.hardwareConcurrency,
    });
  }
  const median = (of: keyof Timing) => runs.map((r) => r[of]).sort((a, b) => a - b)[REPEATS >> 1];
  return { wall: median("wall"), busy: median("busy") };
}

function row(n: number, what: string, flops: number, { wall, busy }: Timing): void {
  const cells = [
    n,
    what,
    wall.toFixed(0),
    busy.toFixed(0),
    (flops / wall / 1e6).toFixed(1),
    (flops / busy / 1e6).toFixed(1),
  ];
  console.log(cells.map((c, i) => i === 1 ? String(c).padEnd(28) : String(c).padStart(8)).join("  "));
}

using gpu = await Gpu.open();
console.log(
  `${gpu.description}, ${gpu.class}, subgroups ${gpu.subgroupSize}, ${navigator.hardwareConcurrency} cores`,
);
const heads = ["n", "what", "wall ms", "busy ms", "GF/s", "GF/s busy"];
console.log(heads.map((h, i) => i === 1 ? h.padEnd(28) : h.padStart(8)).join("  "));
for (const n of [768, 1536, 3072].filter((n) => n <= largest)) {
  const values = Float32Array.from({ length: TOKENS * n }, (_, i) => Math.sin(i * (i % 1009)));
  const keys = fromHost(gpu, "keys", [TOKENS, n], values);
  using moment = new SecondMoment(gpu, "C", n);
  const r = gpu.recorder();
  moment.add(r, keys);
  using plan = r.finish("moment");
  const collect = async () => {
    plan.run();
    await gpu.sync();
  };
  row(n, `moment of ${TOKENS} tokens`, TOKENS * n * (n + 1), await time(collect));
  const one = Float64Array.from({ length: n }, (_, i) => Math.cos(i));
  const many = Float64Array.from({ length: MANY * n }, (_, i) => Math.cos(i));
  const routes: Route[] = gpu.numerics.f64 ? ["f64", "compensated"] : ["compensated"];
  for (const route of routes) {
    const factored = await time(async () => (await factorSpd(gpu, moment, { name: "C", route })).dispose());
    row(n, `${route} factor`, n ** 3 / 3, factored);
    using factor = await factorSpd(gpu, moment, { name: "C", route });
    row(n, `${route} solve`, 2 * n * n, await time(async () => void await factor.solve(one)));
    if (route === "compensated" && n > 1536) continue; // half a minute that says nothing new
    row(
      n,
      `${route} ${MANY} solves`,
      2 * n * n * MANY,
      await time(async () => void await factor.solve(many, MANY)),
    );
  }
}
