/**
 * Attention over rows. A row is one token of some sequence; what it sees is data, not shape: a shared run of
 * slots (a common prefix) and an own run, both in the key/value store. Causality, sliding windows, cached
 * keys and grouped heads are all in these ranges, so a full forward and the last rows of many cached
 * sequences are the same kernel.
 */
import { GpuError } from "../gpu/errors.ts";
import { attentionDkv, attentionDq, attentionForward } from "../kernels/attention.ts";
import {
  attentionDkvSubgroup,
  attentionDqSubgroup,
  attentionForwardSubgroup,
  sharedHeads,
} from "../kernels/attention_subgroup.ts";
import { describe, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { scatterRows } from "./rows.ts";

/** Who sees whom; all u32. */
export interface AttentionMap {
  /** [Rq, 4]: first shared slot, shared count, first own slot, own count. */
  readonly queries: Tensor;
  /**
   * [Rk, 2]: the query rows that see key row j are `[first, end)`. Only for the backward pass; absent when
   * live sequences share rows, which then has none.
   */
  readonly keys?: Tensor;
  /** [Rk]: where a live row's key and value go in the store. Absent when the live rows are the store. */
  readonly slots?: Tensor;
}

/** A layer's cached keys and values, [slots, kvHeads·headDim] each. */
export interface KvStore {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** For GPUs and for other software drivers; and for software drivers whose subgroups have 8 lanes. */
const WORKGROUP = { forward: attentionForward, dq: attentionDq, dkv: attentionDkv };
const SUBGROUP = {
  forward: attentionForwardSubgroup,
  dq: attentionDqSubgroup,
  dkv: attentionDkvSubgroup,
};

export interface AttentionShape {
  heads: number;
  kvHeads: number;
  headDim: number;
  scale: number;
}

/**
 * q [Rq, H·Dh], live k and v [Rk, Hkv·Dh] → [Rq, H·Dh]. With a store, the live rows are written into it first
 * and cached rows in it are constants: no gradient flows to them.
 * Kept for backward: q, k, v, the output and its log-sum-exp; probabilities are recomputed.
 */
export function attention(
  ctx: Ctx,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  map: AttentionMap,
  shape: AttentionShape,
  store?: KvStore,
): Tensor {
  const { heads, kvHeads, headDim, scale } = shape;
  const [rows, width] = q.shape;
  if (width !== heads * headDim) {
    throw new GpuError(`Cannot split ${describe(q)} into ${heads} heads of ${headDim}`);
  }
  if (heads % kvHeads !== 0) {
    throw new GpuError(`${heads} query heads do not share ${kvHeads} key heads evenly`);
  }
  let keys = k, values = v;
  if (store) {
    if (!map.slots) throw new GpuError("Attention with a store needs the slots of its live rows");
    scatterRows(ctx, k, map.slots, store.k);
    scatterRows(ctx, v, map.slots, store.v);
    keys = store.k;
    values = store.v;
  }
  const out = temp(ctx, "attention", [rows, width]);
  const stats = temp(ctx, "attention stats", [rows, heads, 2]);
  const params = { heads, kvHeads, scale };
  const variant = { DIM: headDim };
  const kernels = ctx.gpu.class === "cpu" && ctx.gpu.subgroupSize === 8 ? SUBGROUP : WORKGROUP;
  const bound = {
    q: storageOf(q),
    k: storageOf(keys),
    v: storageOf(values),
    queries: storageOf(map.queries),
  };
  const bind = { ...bound, o: storageOf(out), stats: storageOf(stats) };
  if (kernels === SUBGROUP) {
    const SHARED = sharedHeads(heads, kvHeads, headDim);
    const grid = [Math.ceil(rows / 8), heads / SHARED, 1] as const;
    ctx.r.dispatch(kernels.forward, {
      variant: { ...variant, SHARED },
      bind,
      params: { ...params, rows },
      grid,
    });
  } else ctx.r.dispatch(kernels.forward, { variant, bind, params, grid: [rows, heads, 1] });
  const { tape } = ctx;
  if (tape?.needs(q, k, v)) {
    const seeing = map.keys;
    if (!seeing) throw new GpuError("Attention over rows that live sequences share has no gradient");
    tape.push(out, () => {
      const dout = tape.grad(out);
      if (!dout) return;
      const dq = gradTarget(ctx, q), dk = gradTarget(ctx, k), dv = gradTarget(ctx, v);
      if (dq.accumulate || dk.accumulate || dv.accumulate) {
        throw new GpuError("Queries, keys and values of an attention may not be used elsewhere");
      }
      ctx.r.dispatch(kernels.dq, {
        variant,
        bind: {
          ...bound,
          stats: storageOf(stats),
          out: storageOf(out),
          dout: storageOf(dout),
          dq: storageOf(dq.grad),
        },
        params,
        grid: [rows, heads, 1],
      });
      ctx.r.dispatch(kernels.dkv, {
        variant,
        bind: {
          q: storageOf(q),
          k: storageOf(k),
          v: storageOf(v),
          keys: storageOf(seeing),
          stats: storageOf(stats),
          dout: storageOf(dout),
          dk: storageOf(dk.grad),
          dv: storageOf(dv.grad),
        },
        params,
        grid: [k.shape[0], kvHeads, 1],
      });
    });
  }
  return out;
}
