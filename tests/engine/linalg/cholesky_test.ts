import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { type FactorOptions, factorSpd } from "../../../engine/linalg/cholesky.ts";
import { choleskyInPlace, choleskySolve } from "../../../engine/linalg/host.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { writeTensor } from "../../../engine/tensor/transfer.ts";
import { normals } from "../ops/_reference.ts";
import { column, DEVICES, norm, residuals, shifted, SPECTRA, split, symmetric, upload } from "./_spd.ts";

/** Around the tiles of 32, 64 and 128, a single element, and a prime. */
const SIZES = [1, 31, 32, 33, 65, 130, 257];
/** Right-hand sides: more than one, not a multiple of four. */
const M = 3;

/**
 * What a route promises for ‖b − Ax‖ when ‖A‖ = 1. Direct: Cholesky's backward error is bounded by about
 * 4n² roundings times ‖A‖‖x‖ and grows like n in practice (Higham, Accuracy and Stability, 10.1); measured
 * n/10, allowed 4n. Compensated: the aims of conjugate_gradients.ts, doubled, since the residual was judged
 * by a product that is itself accurate to 2⁻⁴⁸√n.
 */
function allowed(route: string, n: number, b: Float64Array, x: Float64Array): number {
  if (route !== "compensated") return 4 * n * 2 ** -53 * norm(x) + 2 ** -52 * norm(b);
  return 2 * Math.max(1e-10 * norm(b), 1e-13 * norm(x));
}

async function checkSolve(gpu: Gpu, a: Float64Array, n: number, options: Omit<FactorOptions, "name">) {
  const { hi, lo, sum } = split(a);
  const C = upload(gpu, hi, n);
  const low = upload(gpu, lo, n);
  using factor = await factorSpd(gpu, C, { name: "C", lo: low, ...options });
  const A = shifted(sum, n, factor.shift);
  const b = normals(n * M, 7);
  const x = await factor.solve(b, M);
  const r = residuals(A, n, x, b, M);
  for (let c = 0; c < M; c++) {
    const limit = allowed(factor.route, n, column(b, n, c), column(x, n, c));
    ok(r[c] <= limit, `${factor.route} n=${n}: residual ${r[c]} of column ${c} is above ${limit}`);
  }
  [C, low].forEach((t) => freeTensor(gpu, t));
  const trace = sum.reduce((s, v, i) => i % (n + 1) === 0 ? s + v : s, 0);
  ok(Math.abs(factor.shift - factor.jitter * trace / n) <= 1e-14 * factor.shift);
  return { x, A, b, factor };
}

const ROUTES = [["native", "f64"], ["single", "compensated"], ["portable", "compensated"]] as const;
for (const [device, route] of ROUTES) {
  Deno.test(`factorSpd() solves at every size by ${route} on the ${device} device`, async () => {
    const gpu = await DEVICES[device]();
    const names = Object.keys(SPECTRA);
    for (const [i, n] of SIZES.entries()) {
      // The portable device runs the same code as the single one but for the update kernel.
      if (device === "portable" && n < 65) continue;
      await checkSolve(gpu, symmetric(n, SPECTRA[names[i % names.length]]), n, { route });
    }
    gpu.check();
  });
}

Deno.test("factorSpd() agrees with the host reference when the matrix is ill-conditioned", async () => {
  const n = 130;
  for (const [name, eigenvalue] of Object.entries(SPECTRA)) {
    const a = symmetric(n, eigenvalue);
    for (
      const [device, route] of [["native", "f64"], ["native", "host"], ["single", "compensated"]] as const
    ) {
      const { x, A, b } = await checkSolve(await DEVICES[device](), a, n, { route });
      const l = A.slice();
      choleskyInPlace(l, n);
      const expected = choleskySolve(l, n, b, M);
      // The residual's bound times ‖A⁻¹‖, and the reference errs as much as the direct routes do.
      const inverse = 1 / eigenvalue(n - 1, n);
      for (let c = 0; c < M; c++) {
        const [got, want, rhs] = [x, expected, b].map((v) => column(v, n, c));
        const limit = inverse * (allowed(route, n, rhs, want) + allowed("host", n, rhs, want));
        ok(norm(got, want) <= limit, `${name} ${route}: ${norm(got, want)} > ${limit}`);
      }
    }
  }
});

Deno.test("factorSpd() regularises alike when the routes differ", async () => {
  const n = 65;
  const a = symmetric(n, (i) => i < 20 ? 1 / (i + 1) : 0);
  const options = { jitter: 1e-4 };
  const native = await DEVICES.native();
  const solutions = [
    await checkSolve(native, a, n, { ...options, route: "f64" }),
    await checkSolve(native, a, n, { ...options, route: "host" }),
    await checkSolve(native, a, n, { ...options, route: "compensated" }),
    await checkSolve(await DEVICES.single(), a, n, { ...options, route: "compensated" }),
  ];
  const [first, ...others] = solutions;
  for (const { factor, x } of others) {
    strictEqual(factor.shift, first.factor.shift);
    // ‖A⁻¹‖ is at most 1/shift; residuals are at most 2e-10·‖b‖ here, a column of b has norm √65.
    ok(norm(x, first.x) <= 2e-10 * Math.sqrt(65 * M) / first.factor.shift);
  }
});

Deno.test("factorSpd() converges by conjugate gradients when f32 alone could not factor", async () => {
  const n = 130;
  const a = symmetric(n, (i) => 1e10 ** (-i / (n - 1)));
  const { factor } = await checkSolve(await DEVICES.single(), a, n, { route: "compensated", jitter: 0 });
  ok(factor.lastSolve.iterations > 2);
});

Deno.test("factorSpd() solves on the host's products when the device breaks compensated sums", async () => {
  const gpu = await DEVICES.single();
  const trusted = gpu.numerics;
  gpu.numerics = { ...trusted, compensated: false };
  try {
    await checkSolve(gpu, symmetric(65, SPECTRA["condition 1e6"]), 65, { route: "compensated" });
  } finally {
    gpu.numerics = trusted;
  }
});

for (const [device, route] of [["native", "f64"], ["native", "host"], ["single", "compensated"]] as const) {
  Deno.test(`factorSpd() names matrix, column and remedy when a pivot fails in ${route}`, async () => {
    const gpu = await DEVICES[device]();
    const n = 70;
    const a = shifted(new Float64Array(n * n), n, 1);
    // The leading 41×41 block is the identity; column 40 couples to 10 so strongly that its pivot is 1 − 4.
    a[40 * n + 10] = a[10 * n + 40] = 2;
    const C = upload(gpu, Float32Array.from(a), n);
    await rejects(factorSpd(gpu, C, { name: "C of layer 5", route }), {
      name: "PivotError",
      message: /^Cannot factor C of layer 5 \[70, 70\]: column 40 has the pivot -3\.0\d .*\nUse a larger/,
    });
    await rejects(
      factorSpd(gpu, createTensor(gpu, "zero", [n, n]), { name: "Z", route }),
      /column 0 has the pivot 0\.00/,
    );
    a[40 * n + 10] = NaN;
    writeTensor(gpu, C, Float32Array.from(a));
    await rejects(factorSpd(gpu, C, { name: "N", route }), /column 40 has the pivot NaN/);
    freeTensor(gpu, C);
    gpu.check();
  });
}

Deno.test("factorSpd() gives the same answer when the matrix and the factor are sharded", async () => {
  const n = 257;
  const { hi } = split(symmetric(n, SPECTRA["i^-1"]));
  const b = normals(n * M, 3);
  for (const [device, route] of [["native", "f64"], ["single", "compensated"]] as const) {
    const gpu = await DEVICES[device]();
    const whole = upload(gpu, hi, n);
    // Three shards of the source; one panel a 64 rows of the target, which f64 allows from 160 KiB on.
    const parts = upload(gpu, hi, n, 100 * n * 4);
    strictEqual(parts.shards.length, 3);
    using one = await factorSpd(gpu, whole, { name: "C", route });
    using many = await factorSpd(gpu, parts, { name: "C", route, maxShardBytes: 64 * 320 * 8 });
    const [x, y] = [await one.solve(b, M), await many.solve(b, M)];
    // The direct route does the same operations; compensated products are summed panel by panel, so there
    // both are only solutions to 2e-10·‖b‖, and ‖A⁻¹‖ is 257.
    if (route === "f64") deepStrictEqual(y, x);
    else ok(norm(x, y) <= 2 * 2e-10 * norm(b) * n);
    await rejects(
      factorSpd(gpu, whole, { name: "C", route, maxShardBytes: 1000 }),
      /Cannot store C .*the limit is 1000/,
    );
    [whole, parts].forEach((t) => freeTensor(gpu, t));
  }
});

Deno.test("factorSpd() takes f64 matrices on every route", async () => {
  const n = 65;
  const a = symmetric(n, SPECTRA["condition 1e3"]);
  const gpu = await DEVICES.native();
  const C = createTensor(gpu, "C", [n, n], { dtype: "f64" });
  writeTensor(gpu, C, a);
  const b = normals(n, 5);
  for (const route of ["f64", "host", "compensated"] as const) {
    using factor = await factorSpd(gpu, C, { name: "C", route, jitter: 0 });
    const x = await factor.solve(b);
    // The compensated route keeps 48 bits of C: 2⁻⁴⁸·‖x‖ is far below its aim.
    ok(residuals(a, n, x, b, 1)[0] <= allowed(route, n, b, x));
  }
  freeTensor(gpu, C);
});

Deno.test("solve() waits once, records once and solves columns alike when they come in bulk", async () => {
  const n = 70;
  const m = 131;
  const gpu = await DEVICES.native();
  const C = upload(gpu, split(symmetric(n, SPECTRA["condition 1e3"])).hi, n);
  let waits = gpu.waits;
  using factor = await factorSpd(gpu, C, { name: "C", route: "f64" });
  strictEqual(gpu.waits - waits, 2, "One wait for the diagonal, one for the factor");
  const b = normals(n * m, 11);
  const x = await factor.solve(b, m);
  const { created } = gpu.memory;
  waits = gpu.waits;
  deepStrictEqual(await factor.solve(b, m), x);
  strictEqual(gpu.waits - waits, 2, "One wait for each 128 columns");
  strictEqual(gpu.memory.created, created);
  // Sums are taken in the same order whatever the width of the plan.
  deepStrictEqual(await factor.solve(column(b, n, 130)), x.slice(130 * n));
  freeTensor(gpu, C);
});

Deno.test("dispose() frees everything when a factor is done", async () => {
  for (const [device, route] of [["native", "f64"], ["single", "compensated"]] as const) {
    const gpu = await DEVICES[device]();
    const n = 65;
    const C = upload(gpu, split(symmetric(n, SPECTRA["i^-1"])).hi, n);
    const held = () => gpu.memory.owners().find(([owner]) => owner === "linalg")?.[1];
    const before = held();
    const factor = await factorSpd(gpu, C, { name: "C", route });
    await factor.solve(normals(n, 1));
    ok(held()! > before!);
    factor.dispose();
    strictEqual(held(), before);
    freeTensor(gpu, C);
  }
});

Deno.test("factorSpd() and solve() refuse what does not fit", async () => {
  const gpu = await DEVICES.single();
  const C = upload(gpu, new Float32Array([2, 1, 1, 2]), 2);
  await rejects(
    factorSpd(gpu, C, { name: "C", route: "f64" }),
    /Cannot factor C in f64: the device has no f64/,
  );
  await rejects(factorSpd(gpu, C, { name: "C", jitter: -1 }), /Cannot factor C with a jitter of -1/);
  const wide = createTensor(gpu, "W", [2, 3]);
  await rejects(factorSpd(gpu, wide, { name: "W" }), /Cannot factor W \[2, 3\]: it is not square/);
  const r = gpu.recorder();
  const temporary = { ...C, shards: [{ storage: r.temp(16, "t"), row: 0, rows: 2 }] };
  await rejects(factorSpd(gpu, temporary, { name: "T" }), /it is a temporary of a plan/);
  using factor = await factorSpd(gpu, C, { name: "C" });
  strictEqual(factor.route, "host");
  await rejects(
    async () => await factor.solve(new Float64Array(3)),
    /1 right-hand sides have 2 values, not 3/,
  );
  await rejects(
    async () => await factor.solve(new Float64Array([1, 2, 3, NaN]), 2),
    /Cannot solve with C: right-hand side 1 has NaN at 1/,
  );
  [C, wide].forEach((t) => freeTensor(gpu, t));
});
