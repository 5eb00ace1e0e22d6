import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { factorSpd, type Route, type SpdFactor } from "../../../engine/linalg/cholesky.ts";
import { unpackFactor } from "../../../engine/linalg/unpack.ts";
import { freeTensor } from "../../../engine/tensor/tensor.ts";
import { normals } from "../ops/_reference.ts";
import { column, DEVICES, norm, residuals, shifted, SPECTRA, split, symmetric, upload } from "./_spd.ts";

const ROUTES = [["native", "host"], ["native", "f64"], ["single", "compensated"]] as const;

/** A + sign·X Xᵀ for m columns of length n. */
function changed(a: Float64Array, n: number, x: Float64Array, m: number, sign = 1): Float64Array {
  const b = a.slice();
  for (let r = 0; r < m; r++) {
    const v = column(x, n, r);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) b[i * n + j] += sign * v[i] * v[j];
  }
  return b;
}

interface Case {
  device: "native" | "single" | "portable";
  route: Route;
  n: number;
  spectrum?: string;
  maxShardBytes?: number;
}

/** A factor of a known matrix of norm 1; `check` holds its solutions against another matrix. */
async function prepare({ device, route, n, spectrum = "i^-1", maxShardBytes }: Case) {
  const gpu = await DEVICES[device]();
  const { hi, lo, sum } = split(symmetric(n, SPECTRA[spectrum]));
  const [C, low] = [upload(gpu, hi, n), upload(gpu, lo, n)];
  const factor = await factorSpd(gpu, C, { name: "C", route, lo: low, maxShardBytes });
  [C, low].forEach((t) => freeTensor(gpu, t));
  const A = shifted(sum, n, factor.shift);
  const b = normals(2 * n, 9);
  const check = async (matrix: Float64Array, of: SpdFactor = factor) => {
    const x = await of.solve(b, 2);
    const size = norm(matrix);
    residuals(matrix, n, x, b, 2).forEach((r, c) => {
      // As in cholesky_test.ts, with the Frobenius norm for ‖A‖; rotations round about as a factorisation does.
      const [rhs, solution] = [norm(column(b, n, c)), norm(column(x, n, c))];
      const limit = route === "compensated"
        ? 2 * Math.max(1e-10 * rhs, 1e-13 * size * solution)
        : 8 * n * 2 ** -53 * (size * solution + rhs);
      ok(r <= limit, `${route} n=${n}: residual ${r} of column ${c} is above ${limit}`);
    });
    return x;
  };
  return { gpu, factor, A, check };
}

for (const [device, route] of ROUTES) {
  Deno.test(`update() takes columns in and out again by ${route}`, async () => {
    for (const [n, m] of [[1, 1], [33, 1], [65, 3], [130, 70]]) {
      const { factor, A, check } = await prepare({ device, route, n });
      using _ = factor;
      const before = factor.conditionEstimate;
      const x = normals(n * m, 21, 0.3);
      await factor.update(x, m);
      await check(changed(A, n, x, m));
      if (n > 1) ok(factor.conditionEstimate !== before, "the condition estimate follows");
      const out = x.slice(0, n * Math.min(2, m));
      await factor.update(out, Math.min(2, m), -1);
      await check(changed(changed(A, n, x, m), n, out, Math.min(2, m), -1));
    }
  });

  Deno.test(`update() works on ill-conditioned matrices by ${route}`, async () => {
    const n = 130;
    for (const spectrum of ["condition 1e6", "i^-2"]) {
      const { factor, A, check } = await prepare({ device, route, n, spectrum });
      using _ = factor;
      const x = normals(n * 4, 22, 1e-2);
      await factor.update(x, 4);
      const grown = changed(A, n, x, 4);
      await check(grown);
      await factor.update(column(x, n, 0), 1, -1);
      await check(changed(grown, n, column(x, n, 0), 1, -1));
    }
  });

  Deno.test(`update() refuses a downdate that leaves nothing positive definite by ${route}`, async () => {
    const n = 65;
    const { factor, A, check } = await prepare({ device, route, n });
    using _ = factor;
    const x = normals(2 * n, 23, 1e-3);
    x.set(normals(n, 24), n);
    await rejects(
      factor.update(x, 2, -1),
      /^GpuError: Cannot take 2 columns out of C \[65, 65\]: column 1 of them has the pivot -.*\nTake out only/,
    );
    await check(A);
    await rejects(factor.update(x, 3), /3 right-hand sides have 195 values, not 130/);
  });

  Deno.test(`pack() keeps what update() changed by ${route}`, async () => {
    const n = 65;
    const { gpu, factor, A, check } = await prepare({ device, route, n });
    using _ = factor;
    const x = normals(3 * n, 25, 0.3);
    await factor.update(x, 3);
    await factor.update(column(x, n, 1), 1, -1);
    using restored = unpackFactor(gpu, await factor.pack());
    strictEqual(restored.conditionEstimate, factor.conditionEstimate);
    const matrix = changed(changed(A, n, x, 3), n, column(x, n, 1), 1, -1);
    deepStrictEqual(await check(matrix, restored), await check(matrix));
  });
}

Deno.test("update() gives the same factor when it is in several panels", async () => {
  const n = 257, m = 2;
  const x = normals(n * m, 26, 0.3);
  const solutions = [];
  for (const maxShardBytes of [undefined, 64 * 320 * 8]) {
    const { factor, A, check } = await prepare({ device: "native", route: "f64", n, maxShardBytes });
    using _ = factor;
    await factor.update(x, m);
    solutions.push(await check(changed(A, n, x, m)));
  }
  deepStrictEqual(solutions[1], solutions[0]);
});
