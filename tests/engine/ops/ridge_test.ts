import { ok } from "node:assert/strict";
import { keyedRows, ridgeSolve } from "../../../engine/ops/ridge.ts";
import { freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, normals } from "./_reference.ts";

/** X of A X = B by elimination with pivots, in f64; A [n, n], B [n, m]. */
function solved(A: Float64Array, B: Float64Array, n: number, m: number): Float64Array {
  const a = A.slice(), x = B.slice();
  for (let k = 0; k < n; k++) {
    let best = k;
    for (let i = k; i < n; i++) if (Math.abs(a[i * n + k]) > Math.abs(a[best * n + k])) best = i;
    for (let j = 0; j < n; j++) [a[k * n + j], a[best * n + j]] = [a[best * n + j], a[k * n + j]];
    for (let j = 0; j < m; j++) [x[k * m + j], x[best * m + j]] = [x[best * m + j], x[k * m + j]];
    for (let i = 0; i < n; i++) {
      if (i === k) continue;
      const f = a[i * n + k] / a[k * n + k];
      for (let j = k; j < n; j++) a[i * n + j] -= f * a[k * n + j];
      for (let j = 0; j < m; j++) x[i * m + j] -= f * x[k * m + j];
    }
  }
  return x.map((v, i) => v / a[Math.floor(i / m) * (n + 1)]);
}

const N = 9, INNER = 5, OUT = 4, GROUPS = [0, 0, 1, 0, 2, 1, 0, 2, 0];

/** K Kᵀ within groups, with e^λ on the diagonal. */
function dual(K: Float64Array, lambda: number, groups = GROUPS): Float64Array {
  return new Float64Array(N * N).map((_, at) => {
    const i = Math.floor(at / N), j = at % N;
    if (groups[i] !== groups[j]) return 0;
    let dot = i === j ? Math.exp(lambda) : 0;
    for (let c = 0; c < INNER; c++) dot += K[i * INNER + c] * K[j * INNER + c];
    return dot;
  });
}

Deno.test(
  "ridgeSolve() solves each group's system, with gradients to differences and ridge",
  withGpu(async (gpu) => {
    const K = normals(N * INNER, 1);
    const keys = fromHost(gpu, "K", [N, INNER], K);
    const groups = fromHost(gpu, "groups", [N], Uint32Array.from(GROUPS));
    await checkOp(gpu, {
      inputs: {
        D: { shape: [N, OUT], values: normals(N * OUT, 2) },
        lambda: { shape: [3], values: normals(3, 3) },
      },
      op: (ctx, { D, lambda }) => ridgeSolve(ctx, keys, D, groups, { lambda, at: 1 }),
      reference: ({ D, lambda }) => solved(dual(K, lambda[1]), D, N, OUT),
      // The system's condition number is below 100.
      tolerance: 100 * dotTolerance(N),
    });
    [keys, groups].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "ridgeSolve()'s dual is the primal solution, and goes to nothing as the ridge grows",
  withGpu(async (gpu) => {
    const K = normals(N * INNER, 1), D = normals(N * OUT, 2);
    const [keys, differences, groups] = [
      fromHost(gpu, "K", [N, INNER], K),
      fromHost(gpu, "D", [N, OUT], D),
      fromHost(gpu, "groups", [N], new Uint32Array(N)),
    ];
    const shift = async (lambda: number) => {
      const l = fromHost(gpu, "lambda", [1], Float32Array.of(lambda));
      const [V] = await evaluate(
        gpu,
        (ctx) => [ridgeSolve(ctx, keys, differences, groups, { lambda: l, at: 0 })],
      );
      freeTensor(gpu, l);
      // ΔW [in, out] = KᵀV
      return new Float64Array(INNER * OUT).map((_, at) => {
        let sum = 0;
        for (let n = 0; n < N; n++) sum += K[n * INNER + Math.floor(at / OUT)] * V[n * OUT + at % OUT];
        return sum;
      });
    };
    const lambda = -1;
    const gram = new Float64Array(INNER * INNER).map((_, at) => {
      const i = Math.floor(at / INNER), j = at % INNER;
      let sum = i === j ? Math.exp(lambda) : 0;
      for (let n = 0; n < N; n++) sum += K[n * INNER + i] * K[n * INNER + j];
      return sum;
    });
    const right = new Float64Array(INNER * OUT).map((_, at) => {
      let sum = 0;
      for (let n = 0; n < N; n++) sum += K[n * INNER + Math.floor(at / OUT)] * D[n * OUT + at % OUT];
      return sum;
    });
    assertClose(await shift(lambda), solved(gram, right, INNER, OUT), 100 * dotTolerance(N), "primal");
    const far = await shift(40);
    ok(far.every((v) => Math.abs(v) < 1e-12), "A huge ridge leaves a change");
    [keys, differences, groups].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "keyedRows() scales each row by a product of two others, with gradients to the learned ones",
  withGpu(async (gpu) => {
    const rows = 3, inner = 11, outer = 7;
    const k = normals(rows * inner, 1);
    const keys = fromHost(gpu, "k", [rows, inner], k);
    await checkOp(gpu, {
      inputs: {
        q: { shape: [rows, inner], values: normals(rows * inner, 2) },
        g: { shape: [rows, outer], values: normals(rows * outer, 3) },
      },
      op: (ctx, { q, g }) => keyedRows(ctx, keys, q, g),
      reference: ({ q, g }) =>
        g.map((v, i) => {
          const r = Math.floor(i / outer);
          let dot = 0;
          for (let c = 0; c < inner; c++) dot += k[r * inner + c] * q[r * inner + c];
          return dot * v;
        }),
      tolerance: dotTolerance(inner),
    });
    freeTensor(gpu, keys);
  }),
);
