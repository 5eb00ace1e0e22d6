/**
 * The edits of a sequential run on one model: all changes of a weight lie on it as one factor pair, so a
 * thousand edits cost one product, and a run that goes on after a kill computes the same bits.
 */
import { applyDeltas, type WeightDelta } from "../editors/edit.ts";
import type { Model } from "../engine/models/model.ts";

/** Edits in order, applied together. */
export class EditLayers implements Disposable {
  readonly #model: Model;
  readonly #roles = new Map<string, WeightDelta>();
  #applied: Disposable | undefined;

  constructor(model: Model) {
    this.#model = model;
  }

  /** Lays deltas on top of those that are there. */
  add(deltas: readonly WeightDelta[]): void {
    for (const delta of deltas) {
      const below = this.#roles.get(delta.role);
      this.#roles.set(delta.role, below ? sideBySide(below, delta) : delta);
    }
    this.#apply();
  }

  /** Runs `body` on the unedited model. */
  async without<T>(body: () => Promise<T>): Promise<T> {
    this.#applied?.[Symbol.dispose]();
    try {
      return await body();
    } finally {
      this.#applied = undefined;
      this.#apply();
    }
  }

  #apply(): void {
    this.#applied?.[Symbol.dispose]();
    this.#applied = applyDeltas(this.#model, [...this.#roles.values()]);
  }

  [Symbol.dispose](): void {
    this.#applied?.[Symbol.dispose]();
    this.#applied = undefined;
    this.#roles.clear();
  }
}

/** ΔW₁ + ΔW₂ as one: ranks side by side, dense parts added. */
function sideBySide(a: WeightDelta, b: WeightDelta): WeightDelta {
  const join = (x: Float32Array, y: Float32Array) => {
    const rows = (x.length + y.length) / (a.rank + b.rank || 1);
    const out = new Float32Array(x.length + y.length);
    for (let row = 0; row < rows; row++) {
      const at = row * (a.rank + b.rank);
      out.set(x.subarray(row * a.rank, (row + 1) * a.rank), at);
      out.set(y.subarray(row * b.rank, (row + 1) * b.rank), at + a.rank);
    }
    return out;
  };
  const dense = a.dense && b.dense ? a.dense.map((x, i) => x + b.dense![i]) : a.dense ?? b.dense;
  return {
    role: a.role,
    rank: a.rank + b.rank,
    left: join(a.left, b.left),
    right: join(a.right, b.right),
    ...(dense ? { dense } : {}),
  };
}
