/**
 * The noise of causal tracing (Meng et al. 2022, section 2.1; guide section 12.1): normal draws that are the
 * authors' own, bit for bit of f64, and its size, three standard deviations of the embeddings of subjects.
 */
import { type Model, tensor } from "../../engine/models/model.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { embed } from "../../engine/ops/embedding.ts";
import { createTensor, freeTensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../engine/tensor/transfer.ts";

/**
 * The first draws of NumPy's `RandomState(seed).randn`: the Mersenne Twister MT19937 and Marsaglia's polar
 * method. The authors seed it with 1 for every run, so that all cells of a prompt see the same noise.
 */
export function legacyNormals(seed: number, count: number): Float64Array {
  const random = mersenneTwister(seed);
  const out = new Float64Array(count + 1);
  for (let i = 0; i < count; i += 2) {
    let a, b, r2;
    do {
      a = 2 * random() - 1;
      b = 2 * random() - 1;
      r2 = a * a + b * b;
    } while (r2 >= 1 || r2 === 0);
    const f = Math.sqrt(-2 * Math.log(r2) / r2);
    out[i] = f * b;
    out[i + 1] = f * a;
  }
  return out.subarray(0, count);
}

/** Uniform numbers in [0, 1) with 53 random bits (Matsumoto and Nishimura 1998). */
function mersenneTwister(seed: number): () => number {
  const N = 624, M = 397;
  const state = new Uint32Array(N);
  state[0] = seed;
  for (let i = 1; i < N; i++) {
    const x = state[i - 1] ^ (state[i - 1] >>> 30);
    state[i] = Math.imul(1812433253, x) + i;
  }
  let at = N;
  const next = () => {
    if (at === N) {
      for (let i = 0; i < N; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
        state[i] = state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
  return () => ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
}

/** Tokens looked up at a time. */
const BATCH = 4096;

/**
 * Standard deviation of all coordinates of the token embeddings of subjects, each encoded by itself as the
 * authors do. Special tokens that the tokenizer adds count there and here.
 */
export async function subjectDeviation(model: Model, subjects: readonly string[]): Promise<number> {
  const { gpu, dims, tokenizer } = model;
  const ids = subjects.flatMap((subject) => tokenizer.encode(subject));
  let n = 0, sum = 0, squares = 0;
  for (let at = 0; at < ids.length; at += BATCH) {
    const batch = Uint32Array.from(ids.slice(at, at + BATCH));
    const index = fromHost(gpu, "subject tokens", [batch.length], batch);
    const kept = createTensor(gpu, "subject embeddings", [batch.length, dims.width]);
    try {
      const ctx: Ctx = { gpu, r: gpu.recorder() };
      copy(ctx, embed(ctx, index, tensor(model, "embed")), kept);
      using plan = ctx.r.finish("subject embeddings");
      plan.run();
      for (const x of await readF32(gpu, kept)) {
        n++;
        sum += x;
        squares += x * x;
      }
    } finally {
      [index, kept].forEach((t) => freeTensor(gpu, t));
    }
  }
  return Math.sqrt((squares - sum * sum / n) / (n - 1));
}
