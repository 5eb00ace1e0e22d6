import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { factorSpd } from "../../../engine/linalg/cholesky.ts";
import { denseUpdate, type GramProblem, gramSolve, gramSolveOn } from "../../../engine/linalg/gram.ts";
import { GrownGram } from "../../../engine/linalg/grown_gram.ts";
import { choleskyInPlace, choleskySolve, luSolve } from "../../../engine/linalg/host.ts";
import { nullSpace } from "../../../engine/linalg/null_space.ts";
import { Projector } from "../../../engine/linalg/projector.ts";
import { SecondMoment } from "../../../engine/linalg/moment.ts";
import { normals } from "../ops/_reference.ts";
import { realStatistics } from "./_real.ts";
import { column, DEVICES, norm, SPECTRA, symmetric } from "./_spd.ts";

/** n edits of a layer of width f and d outputs, M = C⁻¹ for a C of condition 1e3. */
function problem(n: number, f: number, d: number, lambda = 1): GramProblem {
  const l = symmetric(f, SPECTRA["condition 1e3"]);
  choleskyInPlace(l, f);
  const keys = normals(n * f, 41);
  return { n, keys, mKeys: choleskySolve(l, f, keys, n), residuals: normals(n * d, 42), lambda };
}

/** Largest |Σ_j G_ij left_j − R_i| over |G||left|, G = λI + KᵀMK formed anew. */
function backwardError({ n, keys, mKeys, residuals, lambda = 0 }: GramProblem, left: Float64Array): number {
  const f = keys.length / n, d = left.length / n;
  let most = 0;
  for (let i = 0; i < n; i++) {
    const rest = Float64Array.from(column(Float64Array.from(residuals), d, i), (v) => -v);
    let size = 0;
    for (let j = 0; j < n; j++) {
      let g = i === j ? lambda : 0;
      for (let k = 0; k < f; k++) g += keys[i * f + k] * mKeys[j * f + k];
      for (let c = 0; c < d; c++) rest[c] += g * left[j * d + c];
      size += Math.abs(g) * norm(column(left, d, j));
    }
    most = Math.max(most, norm(rest) / size);
  }
  return most;
}

Deno.test("gramSolve() factors by Cholesky when M K comes from the same keys, at every size", () => {
  for (const n of [1, 2, 3, 4, 5, 33, 130]) {
    const p = problem(n, 150, 7);
    const { solver, conditionEstimate, left, right } = gramSolve(p);
    strictEqual(solver, "cholesky");
    ok(conditionEstimate >= 1 && conditionEstimate < 1e4);
    // Cholesky's backward error is a small multiple of n roundings.
    ok(backwardError(p, left) <= (8 + n) * Number.EPSILON, `n=${n}: ${backwardError(p, left)}`);
    deepStrictEqual(right, p.mKeys);
  }
});

Deno.test("gramSolve() turns to LU when the keys differ or the matrix is indefinite", () => {
  const p = problem(20, 60, 3, 0);
  const other = { ...p, mKeys: Float64Array.from(p.mKeys, (v, i) => v + 0.1 * Math.sin(i)) };
  const indefinite = { ...p, lambda: -1e4 };
  for (const q of [other, indefinite]) {
    const { solver, left } = gramSolve(q);
    strictEqual(solver, "lu");
    ok(backwardError(q, left) <= 1e3 * Number.EPSILON);
  }
  // One edit whose two keys point apart: a negative number is a fine 1×1 system.
  const one = {
    n: 1,
    keys: Float64Array.of(1, 0),
    mKeys: Float64Array.of(-2, 0),
    residuals: Float64Array.of(4),
  };
  deepStrictEqual([...gramSolve(one).left], [-2]);
  // With many repeated keys and no λ nothing helps.
  const same = normals(60, 1);
  const repeated = { ...p, keys: Float64Array.from({ length: 1200 }, (_, i) => same[i % 60]) };
  throws(
    () => gramSolve({ ...repeated, mKeys: repeated.keys }),
    /Cannot solve with the Gram matrix of the keys \[20, 20\]: it is singular at column 1\nGive a lambda/,
  );
});

Deno.test("gramSolve() takes a thousand edits in seconds", () => {
  const n = 1000, f = 200, d = 64;
  const keys = normals(n * f, 43);
  const p = { n, keys, mKeys: keys, residuals: normals(n * d, 44), lambda: 1 };
  const start = performance.now();
  const { left } = gramSolve(p);
  const seconds = (performance.now() - start) / 1000;
  console.log(`1000 edits, f = ${f}, d = ${d}: ${seconds.toFixed(2)} s`);
  ok(left.every(Number.isFinite));
});

for (const [device, route] of [["native", "f64"], ["single", "compensated"]] as const) {
  Deno.test(`gramSolveOn() agrees with the host by ${route}`, async () => {
    const gpu = await DEVICES[device]();
    for (const [n, f] of [[1, 30], [70, 150], [130, 40]]) {
      const p = problem(n, f, 5);
      const host = gramSolve(p);
      // Blocks of 64 keys, so that the matrix takes several.
      for (const maxShardBytes of [undefined, 64 * 200 * 8]) {
        const made = await gramSolveOn(gpu, p, { route, maxShardBytes });
        // λ = 1 and ‖G‖ ≤ 1e3·n·f: the compensated aim of 1e-10 is relative to the residuals.
        const limit = route === "f64" ? 1e-10 : 1e-8;
        ok(norm(made.left, host.left) <= limit * norm(p.residuals), `n=${n}: ${norm(made.left, host.left)}`);
        deepStrictEqual(made.right, host.right);
      }
    }
    const twice = normals(30, 45);
    const keys = Float64Array.from([...twice, ...twice]);
    await rejects(
      gramSolveOn(gpu, { n: 2, keys, mKeys: keys, residuals: Float64Array.of(1, 2) }, { route }),
      /Cannot solve with the Gram matrix of the keys.*\nGive a lambda above 0/,
    );
  });
}

Deno.test("GrownGram solves as if all keys had come at once", () => {
  const f = 50, d = 6, lambda = 2;
  const all = problem(12, f, d, lambda);
  const grown = new GrownGram(f, lambda);
  strictEqual(grown.conditionEstimate, 1);
  const rows = (v: Float64Array | Float32Array, from: number, to: number) => v.subarray(from * f, to * f);
  for (const [from, to] of [[0, 5], [5, 6], [6, 12]]) {
    grown.append(rows(all.keys, from, to), rows(all.mKeys, from, to), to - from);
  }
  strictEqual(grown.n, 12);
  const residuals = normals(6 * d, 46);
  const padded = Float64Array.from([...new Float64Array(6 * d), ...residuals]);
  const once = gramSolve({ ...all, residuals: padded });
  const made = grown.solve(residuals, 6);
  // The condition is below 1e4: both are off by that many roundings.
  const limit = 1e4 * 12 * Number.EPSILON;
  ok(norm(made.left, once.left) <= limit * norm(once.left));
  deepStrictEqual(made.right, once.right);
  // AlphaEdit's step after a batch: the keys of the edited model take the place of the batch's.
  const after = problem(6, f, d, lambda);
  grown.truncate(6);
  grown.append(after.keys, after.mKeys, 6);
  const replaced = gramSolve({
    n: 12,
    keys: Float64Array.from([...rows(all.keys, 0, 6), ...after.keys]),
    mKeys: Float64Array.from([...rows(all.mKeys, 0, 6), ...after.mKeys]),
    residuals: padded,
    lambda,
  });
  ok(norm(grown.solve(residuals, 6).left, replaced.left) <= limit * norm(replaced.left));
});

Deno.test("GrownGram refuses a repeated key without λ, and is as it was afterwards", () => {
  const grown = new GrownGram(2, 0);
  grown.append(Float64Array.of(1, 2), Float64Array.of(1, 2), 1);
  const again = Float64Array.of(0, 1, 1, 2);
  throws(
    () => grown.append(again, again, 2),
    /key 2 has the pivot .*, so it repeats keys before it\nGive a lambda/,
  );
  strictEqual(grown.n, 1);
  throws(() => grown.append(again, again, 3), /Cannot append 3 keys of length 2 from 4 values/);
  throws(() => grown.truncate(2), /Cannot keep 2 of 1 keys/);
  throws(() => grown.solve(again, 2), /Cannot give 4 residuals to the last 2 of 1 keys/);
  throws(() => new GrownGram(2, -1), /a lambda of -1: it is below 0/);
});

Deno.test("AlphaEdit's reference solve equals the Gram form with P (guide, 17.4)", async () => {
  const gpu = await DEVICES.native();
  const f = 66, d = 4, past = 5, n = 3, lambda = 10;
  const C = symmetric(f, SPECTRA["i^-1"]);
  const lower = Float64Array.from({ length: f * (f + 1) / 2 });
  for (let i = 0, at = 0; i < f; i++) for (let j = 0; j <= i; j++, at++) lower[at] = C[i * f + j];
  using projector = new Projector(gpu, await nullSpace(gpu, { n: f, lower }, { name: "C", threshold: 0.05 }));
  const P = Float64Array.from(await projector.dense());
  const keys = normals((past + n) * f, 51);
  const residuals = normals(n * d, 52);
  // dWᵀ = solve(P (K Kᵀ + C_p) + λI, P K Rᵀ), with f32's P on both sides of the comparison.
  const A = new Float64Array(f * f);
  const PK = new Float64Array(keys.length);
  for (let e = 0; e < past + n; e++) {
    const k = column(keys, f, e);
    for (let i = 0; i < f; i++) for (let j = 0; j < f; j++) PK[e * f + i] += P[i * f + j] * k[j];
    for (let i = 0; i < f; i++) for (let j = 0; j < f; j++) A[i * f + j] += PK[e * f + i] * k[j];
  }
  for (let i = 0; i < f; i++) A[i * f + i] += lambda;
  const rhs = new Float64Array(d * f);
  for (let e = 0; e < n; e++) {
    for (let c = 0; c < d; c++) {
      for (let i = 0; i < f; i++) rhs[c * f + i] += residuals[e * d + c] * PK[(past + e) * f + i];
    }
  }
  const expected = luSolve(A, f, rhs, d);
  const grown = new GrownGram(f, lambda);
  const projected = await projector.apply(keys, past + n);
  grown.append(keys, projected, past + n);
  const dW = denseUpdate(grown.solve(residuals, n));
  // P in f32 on one side, in f64 on the other: 2⁻²⁴ an element, times √f for a row.
  ok(norm(dW, expected) <= 8 * 2 ** -24 * norm(expected), `${norm(dW, expected) / norm(expected)}`);
  // What is written lies in the space that was kept: dW P = dW.
  for (let c = 0; c < d; c++) {
    const row = dW.slice(c * f, (c + 1) * f);
    ok(norm(await projector.apply(row), row) <= 1e-13 * norm(row));
  }
});

Deno.test("factorSpd() solves with real key statistics alike on every route", async () => {
  const real = await realStatistics();
  if (!real) return;
  const { n, name } = real;
  const m = 2;
  const b = normals(n * m, 53);
  for (const jitter of [1e-6, 0]) {
    const solutions: Float64Array[] = [];
    for (const [device, route] of [["native", "f64"], ["single", "compensated"]] as const) {
      const gpu = await DEVICES[device]();
      using moment = new SecondMoment(gpu, name, n);
      moment.load({ count: 1, lower: Float64Array.from(real.lower) });
      using factor = await factorSpd(gpu, moment, { name, route, jitter });
      solutions.push(await factor.solve(b, m));
      const { conditionEstimate, lastSolve } = factor;
      console.log(
        `${name} ${route}, jitter ${jitter}: condition at least ${conditionEstimate.toExponential(1)}, ` +
          `${lastSolve.iterations} iterations`,
      );
    }
    const apart = norm(solutions[0], solutions[1]) / norm(solutions[0]);
    console.log(`  apart by ${apart.toExponential(1)}`);
    // The residual is at most 1e-10·‖b‖ on the compensated route, and the smallest eigenvalue 3.2e-3.
    ok(norm(solutions[0], solutions[1]) <= 2 * 1e-10 / 3.2e-3 * norm(b));
  }
});
