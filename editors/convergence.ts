/**
 * How far a sample of keys is enough: the angle by which C⁻¹k, the direction of an edit, turns between half of
 * the sample and all of it. Looked at whenever the sample has doubled, for a few keys of every layer.
 */
import type { Gpu } from "../engine/gpu/device.ts";
import { factorSpd } from "../engine/linalg/cholesky.ts";
import type { SecondMoment } from "../engine/linalg/moment.ts";
import type { Look } from "./statistics.ts";

/** Keys of a layer whose C⁻¹k is watched. */
const PROBES = 8;

/** What a resumed collection needs to look at the same keys at the same tokens. */
export interface WatchState {
  /** Tokens at which the next look is due. */
  next: number;
  /** The looks at each layer so far. */
  looks: Look[][];
  /** The watched keys of each layer, once chosen, and their C⁻¹k at the last look. */
  keys?: Float64Array[];
  last?: Float64Array[];
}

/** Watches the layers of one collection. */
export class Watch {
  readonly state: WatchState;
  #moments: readonly SecondMoment[];

  constructor(moments: readonly SecondMoment[], resume?: WatchState) {
    this.#moments = moments;
    // Fewer tokens than the key is wide leave C singular: the first look is at four times that.
    this.state = resume ?? { next: 4 * moments[0].n, looks: moments.map(() => []) };
  }

  /** True until the watched keys are chosen. */
  get wanted(): boolean {
    return this.state.keys === undefined;
  }

  /** Keeps keys spread over the rows of a batch: [rows, F] of each layer. */
  take(batch: readonly Float32Array[]): void {
    const width = this.#moments[0].n;
    this.state.keys = batch.map((keys) => {
      const rows = keys.length / width;
      const kept = new Float64Array(PROBES * width);
      for (let i = 0; i < PROBES; i++) {
        const row = Math.floor((i + 0.5) * rows / PROBES);
        kept.set(keys.subarray(row * width, (row + 1) * width), i * width);
      }
      return kept;
    });
  }

  /** Looks, when it is time to: C⁻¹k of every watched key, against what it was at half of the tokens. */
  async look(gpu: Gpu, tokens: number): Promise<void> {
    const { state } = this;
    if (tokens < state.next || !state.keys) return;
    state.next = 2 * tokens;
    const now: Float64Array[] = [];
    for (const [i, moment] of this.#moments.entries()) {
      using factor = await factorSpd(gpu, moment, { name: `${moment.label} of ${tokens} tokens` });
      now.push(await factor.solve(state.keys[i], PROBES));
    }
    const { last } = state;
    if (last) {
      now.forEach((x, i) => {
        const angles = anglesBetween(last[i], x, this.#moments[i].n).sort((a, b) => a - b);
        state.looks[i].push({ tokens, median: angles[PROBES >> 1], worst: angles[PROBES - 1] });
      });
    }
    state.last = now;
  }

  /** The cosine of the last look's median angle at the layer that turned most; undefined without a look. */
  get cosine(): number | undefined {
    const latest = this.state.looks.flatMap((looks) => looks.slice(-1));
    return latest.length ? cosineOf(Math.max(...latest.map(({ median }) => median))) : undefined;
  }
}

/** The cosine of an angle in degrees. */
export function cosineOf(degrees: number): number {
  return Math.cos(degrees * Math.PI / 180);
}

/** The angle in degrees between each pair of vectors of the given width. */
function anglesBetween(a: Float64Array, b: Float64Array, width: number): number[] {
  return Array.from({ length: a.length / width }, (_, i) => {
    const [x, y] = [a, b].map((v) => normalised(v.subarray(i * width, (i + 1) * width)));
    let near = 0, far = 0;
    for (let j = 0; j < width; j++) {
      near += (x[j] - y[j]) ** 2;
      far += (x[j] + y[j]) ** 2;
    }
    // Unlike the arc cosine of a product, exact for small angles (Kahan).
    return 2 * Math.atan2(Math.sqrt(near), Math.sqrt(far)) * 180 / Math.PI;
  });
}

function normalised(v: Float64Array): Float64Array {
  const norm = Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
  return v.map((x) => x / norm);
}
