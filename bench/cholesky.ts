/**
 * The solver's promise: an f64 Cholesky factor of a 3072×3072 matrix and 100 solves in under 5 s on a software
 * driver, its kernels' compilation counted apart; an update of the factor by as many columns; and, with
 * --projector, the projector of AlphaEdit at the same size. With --python, PyTorch does the same in the same
 * go.
 *
 *   deno run -A bench/cholesky.ts [--n 3072] [--columns 100] [--route f64] [--projector] [--python PYTHON]
 *
 * `busy` is the process's CPU time over the number of cores: what an otherwise idle machine would need. For a
 * truly cold start set MESA_SHADER_CACHE_DISABLE=true.
 */
import process from "node:process";
import { Command } from "npm:commander@15.1.0";
import { Gpu } from "../engine/gpu/device.ts";
import { factorSpd, type Route } from "../engine/linalg/cholesky.ts";
import { SecondMoment } from "../engine/linalg/moment.ts";
import { nullSpace } from "../engine/linalg/null_space.ts";
import { Projector } from "../engine/linalg/projector.ts";
import { seededRandom } from "../engine/models/sample.ts";

const flags = new Command()
  .option("--n <n>", "", "3072")
  .option("--columns <m>", "", "100")
  .option("--route <route>", "", "f64")
  .option("--projector")
  .option("--python <command>")
  .parse(Deno.args, { from: "user" }).opts();
const n = Number(flags.n), m = Number(flags.columns);
const route: Route = flags.route;

/** Prints one line. */
async function time<T>(what: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const before = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(before);
  const busy = (user + system) / 1e6 / navigator.hardwareConcurrency;
  const wall = (performance.now() - start) / 1000;
  console.log(
    `${what.padEnd(34)} wall ${wall.toFixed(2).padStart(7)} s   busy ${busy.toFixed(2).padStart(7)} s`,
  );
  return result;
}

/** A matrix with eigenvalues from 10 down to 1e-3, by one reflection of a diagonal: a key statistic's range. */
function matrix(): Float64Array {
  const random = seededRandom(1);
  const v = Float64Array.from({ length: n }, () => random() - 0.5);
  const vv = v.reduce((s, x) => s + x * x, 0);
  const d = Float64Array.from({ length: n }, (_, i) => 10 * 1e-4 ** (i / (n - 1)));
  const vdv = v.reduce((s, x, i) => s + x * x * d[i], 0);
  const lower = new Float64Array(n * (n + 1) / 2);
  for (let i = 0, at = 0; i < n; i++) {
    for (let j = 0; j <= i; j++, at++) {
      lower[at] = (i === j ? d[i] : 0) + v[i] * v[j] * (4 * vdv / vv - 2 * (d[i] + d[j])) / vv;
    }
  }
  return lower;
}

using gpu = await Gpu.open(route === "compensated" ? { without: ["shader-f64"] } : {});
console.log(`${gpu.description}, ${navigator.hardwareConcurrency} cores, n = ${n}, ${m} columns, ${route}`);
const lower = matrix();
const moment = new SecondMoment(gpu, "C", n);
moment.load({ count: 1, lower });
const b = Float64Array.from({ length: n * m }, (_, i) => Math.cos(i));
for (const round of ["first, with compiling", "again", "again"]) {
  using factor = await time(
    `factor (${round})`,
    () => factorSpd(gpu, moment, { name: "C", route, jitter: 0 }),
  );
  await time(`${m} solves (${round})`, () => factor.solve(b, m));
  console.log(`  condition at least ${factor.conditionEstimate.toExponential(1)}`);
  if (route === "f64") await time(`${m} columns added (${round})`, () => factor.update(b, m));
}
moment.dispose();
if (flags.projector) {
  const space = await time(
    "projector",
    () => nullSpace(gpu, { n, lower }, { name: "C", threshold: 0.02, route }),
  );
  using projector = new Projector(gpu, space);
  const { rank, gap, error } = space;
  console.log(`  rank ${rank} of ${n}, gap ${gap.toExponential(1)}, error about ${error.toExponential(1)}`);
  await time(`${m} keys projected`, () => projector.apply(b, m));
}
if (flags.python) {
  const script = new URL("peers/cholesky_torch.py", import.meta.url).pathname;
  const args = [script, "--n", String(n), "--columns", String(m), ...(flags.projector ? ["--eigh"] : [])];
  const { stdout } = await new Deno.Command(flags.python, { args, stderr: "inherit" }).output();
  const { torch, ...parts } = JSON.parse(new TextDecoder().decode(stdout));
  for (const [what, { wall, busy }] of Object.entries<Record<string, number>>(parts)) {
    console.log(
      `${`PyTorch ${torch} ${what}`.padEnd(34)} wall ${wall.toFixed(2).padStart(7)} s   ` +
        `busy ${busy.toFixed(2).padStart(7)} s`,
    );
  }
}
