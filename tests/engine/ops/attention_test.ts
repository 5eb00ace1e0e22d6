import { throws } from "node:assert/strict";
import { attention, type AttentionMap, type KvStore } from "../../../engine/ops/attention.ts";
import { scale as scaled } from "../../../engine/ops/elementwise.ts";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { asGpuClass, checkOp, withGpu } from "../../_gpu.ts";
import { dotTolerance, ELEMENTWISE, normals } from "./_reference.ts";

/** Query i sees keys: `shared` and `own` are [first, count] runs of slots (of key rows when nothing is cached). */
interface Sight {
  shared?: [first: number, count: number];
  own: [first: number, count: number];
}

interface Case {
  label: string;
  heads: number;
  kvHeads: number;
  dim: number;
  queries: Sight[];
  /** Slot of each live key row. */
  slots: number[];
  /** Slots in all when the keys lie in a store; those without a live row hold constants. */
  store?: number;
}

/** Causal sequences packed one after another, each row seeing `window` rows at most. */
function packed(lengths: number[], window = Infinity): { queries: Sight[]; slots: number[] } {
  let start = 0;
  const queries = lengths.flatMap((length) => {
    const base = start;
    start += length;
    return Array.from({ length }, (_, t): Sight => {
      const low = Math.max(0, t - window + 1);
      return { own: [base + low, t - low + 1] };
    });
  });
  return { queries, slots: [...queries.keys()] };
}

const run = ([first, count]: [number, number] = [0, 0]) => Array.from({ length: count }, (_, i) => first + i);
const seen = (q: Sight) => [...run(q.shared), ...run(q.own)];
const flat = (q: Sight) => [...(q.shared ?? [0, 0]), ...q.own];

/** The definition, in f64: o = Σ_j softmax_j(scale·q·k_j) v_j over the slots that a row sees. */
function reference(c: Case, scale: number, constant: Record<"k" | "v", Float64Array>) {
  const { heads, kvHeads, dim, queries, slots } = c;
  const width = kvHeads * dim;
  const inSlots = (live: Float64Array, cached: Float64Array) => {
    const all = cached.slice();
    slots.forEach((slot, row) => all.set(live.subarray(row * width, (row + 1) * width), slot * width));
    return all;
  };
  return ({ q, k, v }: Record<string, Float64Array>) => {
    const keys = inSlots(k, constant.k), values = inSlots(v, constant.v);
    const out = new Float64Array(queries.length * heads * dim);
    queries.forEach((sight, row) => {
      for (let h = 0; h < heads; h++) {
        const at = (row * heads + h) * dim;
        const group = Math.floor(h / (heads / kvHeads)) * dim;
        const scores = seen(sight).map((slot) => {
          let s = 0;
          for (let d = 0; d < dim; d++) s += q[at + d] * keys[slot * width + group + d];
          return s * scale;
        });
        const top = Math.max(...scores);
        const weights = scores.map((s) => Math.exp(s - top));
        const total = weights.reduce((a, b) => a + b, 0);
        seen(sight).forEach((slot, i) => {
          for (let d = 0; d < dim; d++) {
            out[at + d] += weights[i] / total * values[slot * width + group + d];
          }
        });
      }
    });
    return out;
  };
}

/** The query rows that see each live key, which must follow on one another. */
function keyRanges({ queries, slots }: Case): number[] {
  return slots.flatMap((slot) => {
    const rows = queries.flatMap((q, i) => seen(q).includes(slot) ? [i] : []);
    return rows.length ? [rows[0], rows[rows.length - 1] + 1] : [0, 0];
  });
}

/** Both kernel families: workgroups of 32 as on GPUs, and this device's own. */
async function check(gpu: Gpu, c: Case) {
  for (const asGpu of [false, true]) await checkFamily(gpu, c, asGpu);
}

async function checkFamily(gpu: Gpu, c: Case, asGpu: boolean) {
  const { heads, kvHeads, dim, queries, slots } = c;
  const width = kvHeads * dim;
  const scale = Math.fround(1 / Math.sqrt(dim));
  const u32 = (label: string, shape: number[], values: number[]) =>
    fromHost(gpu, label, shape, Uint32Array.from(values));
  const map = {
    queries: u32("queries", [queries.length, 4], queries.flatMap(flat)),
    keys: u32("keys", [slots.length, 2], keyRanges(c)),
    slots: u32("slots", [slots.length], slots),
  };
  const cells = (c.store ?? slots.length) * width;
  const constant = { k: normals(cells, 11), v: normals(cells, 12) };
  const store: KvStore | undefined = c.store === undefined ? undefined : {
    k: fromHost(gpu, "stored keys", [c.store, width], constant.k),
    v: fromHost(gpu, "stored values", [c.store, width], constant.v),
  };
  const most = Math.max(...queries.map((q) => seen(q).length));
  await checkOp(gpu, {
    inputs: {
      q: { shape: [queries.length, heads * dim], values: normals(queries.length * heads * dim, 1) },
      k: { shape: [slots.length, width], values: normals(slots.length * width, 2) },
      v: { shape: [slots.length, width], values: normals(slots.length * width, 3) },
    },
    op: (ctx, t) => {
      // Copies: attention writes these gradients, while checkOp also wants them added to others.
      const [q, k, v] = [t.q, t.k, t.v].map((x) => scaled(ctx, x, 1));
      return attention(
        asGpu ? asGpuClass(ctx) : ctx,
        q,
        k,
        v,
        map,
        { heads, kvHeads, headDim: dim, scale },
        store,
      );
    },
    reference: reference(c, scale, constant),
    // A score is a dot of `dim`; its error enters through exp, then sums run over the keys, or over the rows
    // and heads that see a key.
    tolerance: ELEMENTWISE + dotTolerance(dim) + dotTolerance(most * heads / kvHeads),
    label: `${c.label}${asGpu ? " on a GPU" : ""}`,
  });
  [...Object.values(map), ...(store ? [store.k, store.v] : [])].forEach((t) => freeTensor(gpu, t));
}

const CASES: Case[] = [
  { label: "one row", heads: 1, kvHeads: 1, dim: 4, ...packed([1]) },
  { label: "long heads", heads: 2, kvHeads: 1, dim: 64, ...packed([3]) },
  { label: "several sequences", heads: 2, kvHeads: 2, dim: 24, ...packed([1, 5, 3]) },
  { label: "grouped heads", heads: 6, kvHeads: 2, dim: 8, ...packed([4, 3]) },
  { label: "one key head for all", heads: 3, kvHeads: 1, dim: 40, ...packed([5]) },
  { label: "a window of 3", heads: 2, kvHeads: 1, dim: 8, ...packed([7, 2, 4], 3) },
  { label: "a window of 1", heads: 2, kvHeads: 2, dim: 8, ...packed([3], 1) },
  { label: "more keys than lanes", heads: 1, kvHeads: 1, dim: 4, ...packed([67]) },
  { label: "as many keys as lanes", heads: 2, kvHeads: 1, dim: 4, ...packed([33, 32]) },
];

for (const c of CASES) {
  Deno.test(
    `attention() equals the f64 definition and its differences on ${c.label}`,
    withGpu((gpu) => check(gpu, c)),
  );
}

Deno.test(
  "attention() equals the f64 definition when only some rows ask",
  withGpu(async (gpu) => {
    for (const [lengths, window] of [[[6, 5], Infinity], [[8, 1, 4], 3]] as const) {
      const { queries, slots } = packed([...lengths], window);
      const chosen = queries.filter((_, i) => [2, 5, 7, 10].includes(i));
      await check(gpu, {
        label: `selected rows, window ${window}`,
        ...{ heads: 4, kvHeads: 2, dim: 8, slots },
        queries: chosen,
      });
    }
  }),
);

Deno.test(
  "attention() takes cached keys as constants when rows see a shared prefix and their own run",
  withGpu(async (gpu) => {
    // Slots 1…3 are a shared prefix, cached; sequence A owns 5…8 (two of them live), B owns 10 and 11, C's one
    // row sees nothing but its own slot. Slots 0, 4 and 9 belong to nobody.
    const shared: [number, number] = [1, 3];
    await check(gpu, {
      label: "store",
      ...{ heads: 4, kvHeads: 2, dim: 16, store: 13, slots: [7, 8, 10, 11, 12] },
      queries: [
        { shared, own: [5, 3] },
        { shared, own: [5, 4] },
        { shared, own: [10, 1] },
        { shared, own: [10, 2] },
        { own: [12, 1] },
      ],
    });
  }),
);

Deno.test(
  "attention() clips the shared prefix when a window slides over it",
  withGpu((gpu) =>
    check(gpu, {
      label: "store, window of 4",
      ...{ heads: 2, kvHeads: 1, dim: 8, store: 40, slots: [37, 38, 39] },
      queries: [
        { shared: [3, 2], own: [36, 2] },
        { shared: [4, 1], own: [36, 3] },
        { own: [36, 4] },
      ],
    })
  ),
);

Deno.test(
  "attention() merges tiles when the shared prefix is longer than one",
  withGpu((gpu) =>
    check(gpu, {
      label: "store, two tiles",
      ...{ heads: 2, kvHeads: 2, dim: 4, store: 48, slots: [46, 47] },
      queries: [{ shared: [2, 35], own: [45, 2] }, { shared: [2, 35], own: [45, 3] }],
    })
  ),
);

Deno.test(
  "attention() names what does not fit",
  withGpu((gpu) => {
    const q = createTensor(gpu, "q", [2, 12]);
    const k = createTensor(gpu, "k", [2, 12]);
    const ids = createTensor(gpu, "ids", [2, 4], { dtype: "u32" });
    const ctx = { gpu, r: gpu.recorder() };
    const map: AttentionMap = { queries: ids, keys: ids };
    const shape = { heads: 3, kvHeads: 3, headDim: 4, scale: 1 };
    throws(
      () => attention(ctx, q, k, k, map, { ...shape, headDim: 8 }),
      /Cannot split q \[2, 12\] into 3 heads/,
    );
    throws(() => attention(ctx, q, k, k, map, { ...shape, kvHeads: 2 }), /3 query heads do not share 2 key/);
    throws(() => attention(ctx, q, k, k, map, shape, { k, v: k }), /needs the slots of its live rows/);
    [q, k, ids].forEach((t) => freeTensor(gpu, t));
  }),
);
