/** Inner products of changes, ⟨ΔA, ΔB⟩ = Σ ΔA ∘ ΔB: norms and angles without whole matrices where possible. */
import { adderOf, storedShape } from "./changes.ts";
import type { LowRankDelta, TensorDelta } from "./patch.ts";

/** Elements that are made at a time where a change is dense. */
const PIECE = 2 ** 16;

/** ⟨Σ a, Σ b⟩ of changes of one tensor, in f64. */
export function innerProduct(a: readonly TensorDelta[], b: readonly TensorDelta[]): number {
  let sum = 0;
  for (const x of a) {
    for (const y of b) {
      sum += x.kind === "low-rank" && y.kind === "low-rank" ? byFactors(x, y) : byElements(x, y);
    }
  }
  return sum;
}

/** ‖Σ deltas‖ of changes of one tensor. */
export function frobenius(deltas: readonly TensorDelta[]): number {
  return Math.sqrt(Math.max(0, innerProduct(deltas, deltas)));
}

/** Σ of ranks, at most what the shape allows; a dense change has all of them. */
export function rankOf(deltas: readonly TensorDelta[]): number {
  const [rows, cols] = storedShape(deltas[0]);
  const most = Math.min(rows, cols ?? 1);
  const ranks = deltas.map((delta) => delta.kind === "dense" ? most : delta.ranks.length);
  return Math.min(most, ranks.reduce((a, b) => a + b));
}

/** Deltas by tensor, in order. */
export function byTensor(deltas: readonly TensorDelta[]): Map<string, TensorDelta[]> {
  const groups = new Map<string, TensorDelta[]>();
  for (const delta of deltas) groups.set(delta.tensor, [...groups.get(delta.tensor) ?? [], delta]);
  return groups;
}

/** ⟨L Rᵀ, L' R'ᵀ⟩ = Σ (Lᵀ L') ∘ (Rᵀ R') */
function byFactors(a: LowRankDelta, b: LowRankDelta): number {
  const left = gram(a.left, a.ranks.length, b.left, b.ranks.length);
  const right = gram(a.right, a.ranks.length, b.right, b.ranks.length);
  return left.reduce((sum, value, i) => sum + value * right[i], 0);
}

/** Xᵀ Y of X [rows, p] and Y [rows, q]: [p, q] */
function gram(x: Float32Array, p: number, y: Float32Array, q: number): Float64Array {
  const out = new Float64Array(p * q);
  for (let row = 0; row < x.length / p; row++) {
    for (let i = 0; i < p; i++) {
      const value = x[row * p + i];
      for (let j = 0; j < q; j++) out[i * q + j] += value * y[row * q + j];
    }
  }
  return out;
}

function byElements(a: TensorDelta, b: TensorDelta): number {
  const total = storedShape(a).reduce((x, y) => x * y, 1);
  const [addA, addB] = [adderOf(a), adderOf(b)];
  let sum = 0;
  for (let first = 0; first < total; first += PIECE) {
    const size = Math.min(PIECE, total - first);
    const [x, y] = [new Float64Array(size), new Float64Array(size)];
    addA(x, first);
    addB(y, first);
    for (let i = 0; i < size; i++) sum += x[i] * y[i];
  }
  return sum;
}
