/**
 * PRUNE (Ma et al. 2024, arXiv 2405.16821; guide section 9): singular values of an update that reach the largest one of
 * the weight are held down,
 *
 *   s ≥ σ   →   ln s − ln σ + σ      σ = σ_max(W0)
 *
 * Only those few singular triplets are needed, so they are found by power iteration on the update's factors and
 * corrected by as many ranks more. In a sequence of calls each call's own update is held down.
 */
import type { Model } from "../engine/models/model.ts";
import type { WeightDelta } from "./edit.ts";
import { hostWeight } from "./host_weight.ts";

/** A matrix as the products with it. */
interface Map2 {
  times(x: Float64Array): Float64Array;
  transposedTimes(y: Float64Array): Float64Array;
  in: number;
}

interface Triplet {
  s: number;
  u: Float64Array;
  v: Float64Array;
}

/** Relative change of s at which an iteration ends, and iterations at most. */
const CONVERGED = 1e-12, MOST = 2000;

/** The update with large singular values held down; itself where there are none. */
export async function prune(model: Model, delta: WeightDelta): Promise<WeightDelta> {
  const { role, rank, left, right } = delta;
  const out = left.length / rank, width = right.length / rank;
  const { s: sigma } = largest(dense(await hostWeight(model, role, false), width));
  const found: Triplet[] = [];
  const factors = lowRank(left, right, rank);
  while (found.length < rank) {
    const next = largest(less(factors, found));
    if (!(next.s >= sigma)) break;
    found.push(next);
  }
  if (found.length === 0) return delta;
  const ranks = rank + found.length;
  const beside = (values: Float32Array, rows: number, extra: readonly (ArrayLike<number>)[]) =>
    Float32Array.from({ length: rows * ranks }, (_, at) => {
      const row = Math.floor(at / ranks), k = at % ranks;
      return k < rank ? values[row * rank + k] : extra[k - rank][row];
    });
  const corrections = found.map(({ s, u }) => {
    const by = Math.log(s) - Math.log(sigma) + sigma - s;
    return u.map((x) => x * by);
  });
  return {
    role,
    rank: ranks,
    left: beside(left, out, corrections),
    right: beside(right, width, found.map(({ v }) => v)),
    shared: true,
  };
}

/** The largest singular value with its vectors. */
function largest(A: Map2): Triplet {
  let v = Float64Array.from({ length: A.in }, (_, i) => 1 + (i * 7919 % 101) / 101);
  let s = 0;
  for (let i = 0; i < MOST; i++) {
    const u = A.times(v);
    const back = A.transposedTimes(u);
    const norm = Math.sqrt(dot(back, back));
    if (norm === 0) return { s: 0, u, v };
    v = back.map((x) => x / norm);
    // ‖AᵀA v‖ of a unit vector tends to s².
    const now = Math.sqrt(norm);
    if (Math.abs(now - s) <= CONVERGED * now) break;
    s = now;
  }
  const u = A.times(v);
  s = Math.sqrt(dot(u, u));
  return { s, u: u.map((x) => x / s), v };
}

function dense(W: Float32Array, width: number): Map2 {
  const rows = W.length / width;
  return {
    in: width,
    times(x) {
      const y = new Float64Array(rows);
      for (let r = 0; r < rows; r++) {
        let sum = 0;
        for (let c = 0; c < width; c++) sum += W[r * width + c] * x[c];
        y[r] = sum;
      }
      return y;
    },
    transposedTimes(y) {
      const x = new Float64Array(width);
      for (let r = 0; r < rows; r++) for (let c = 0; c < width; c++) x[c] += W[r * width + c] * y[r];
      return x;
    },
  };
}

function lowRank(left: Float32Array, right: Float32Array, rank: number): Map2 {
  const L = dense(left, rank), R = dense(right, rank);
  return {
    in: right.length / rank,
    times: (x) => L.times(R.transposedTimes(x)),
    transposedTimes: (y) => R.times(L.transposedTimes(y)),
  };
}

/** A without triplets that are known. */
function less(A: Map2, known: readonly Triplet[]): Map2 {
  const without = (y: Float64Array, x: Float64Array, from: "u" | "v", to: "u" | "v") => {
    for (const triplet of known) {
      const along = triplet.s * dot(triplet[from], x);
      for (let i = 0; i < y.length; i++) y[i] -= along * triplet[to][i];
    }
    return y;
  };
  return {
    in: A.in,
    times: (x) => without(A.times(x), x, "v", "u"),
    transposedTimes: (y) => without(A.transposedTimes(y), y, "u", "v"),
  };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
