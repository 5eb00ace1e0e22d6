/** Attention over rows: forward, and backward to queries and to live keys and values. */
import forwardSource from "../../shaders/attention/attention.wgsl" with { type: "text" };
import dqSource from "../../shaders/attention/attention_dq.wgsl" with { type: "text" };
import dkvSource from "../../shaders/attention/attention_dkv.wgsl" with { type: "text" };
import seenKeys from "../../shaders/attention/seen_keys.wgsl" with { type: "text" };
import seeingHeads from "../../shaders/attention/seeing_heads.wgsl" with { type: "text" };
import { defineKernel, unroll, type Variant, type VariantValue } from "../gpu/kernel.ts";
import { reduce } from "./reduce.ts";

/** Head sizes in use by the supported families; each is a constant because it shapes registers. */
const HEAD_DIMS = [64, 4, 8, 16, 24, 32, 40, 48, 80, 96, 128, 160, 192, 256];
const variants: Record<string, readonly VariantValue[]> = { DIM: HEAD_DIMS, UNROLL: [4, 8] };
const params = { heads: "u32", kvHeads: "u32", scale: "f32" } as const;
const qkv = { q: "read f32", k: "read f32", v: "read f32" } as const;
const LANES = 32;
/** A head is DIM columns wide; the lanes of a workgroup are its invocations. */
const constants = `const WG: u32 = ${LANES}u;\nconst PARTS: u32 = DIM;`;

/** Columns of a head that each of the 32 lanes owns. */
function slices(v: Variant, line: (s: number, column: string, guard: string) => string): string {
  const dim = v.DIM as number;
  return unroll(Math.ceil(dim / LANES), (s) => {
    const whole = (s + 1) * LANES <= dim;
    return line(s, `min(lane + ${s * LANES}u, DIM - 1u)`, whole ? "true" : `lane + ${s * LANES}u < DIM`);
  });
}

const dot = (v: Variant, line: (d: string) => string) => unroll(v.UNROLL as number, (i) => line(`d + ${i}u`));

export const attentionForward = defineKernel({
  name: "attention",
  source: forwardSource,
  bindings: { ...qkv, queries: "read u32", o: "write f32", stats: "write f32" },
  params,
  variants,
  snippets: () => [constants, seenKeys],
  blocks: (v) => ({
    zero: slices(v, (s) => `var y${s} = 0.0;`),
    dot: dot(v, (d) => `s += q[q0 + ${d}] * k[at + ${d}];`),
    shrink: slices(v, (s) => `y${s} *= shrink;`),
    values: slices(v, (s, col) => `y${s} += w * v[vt + ${col}];`),
    store: slices(v, (s, col, guard) => `if (${guard}) { o[q0 + ${col}] = y${s} * norm; }`),
  }),
});

export const attentionDq = defineKernel({
  name: "attention_dq",
  source: dqSource,
  bindings: {
    ...qkv,
    queries: "read u32",
    stats: "update f32",
    out: "read f32",
    dout: "read f32",
    dq: "write f32",
  },
  params,
  variants,
  snippets: () => [constants, seenKeys, reduce],
  blocks: (v) => ({
    zero: slices(v, (s) => `var y${s} = 0.0;`),
    dots: dot(v, (d) => `s += q[q0 + ${d}] * k[at + ${d}]; dp += dout[q0 + ${d}] * v[at + ${d}];`),
    values: slices(v, (s, col) => `y${s} += w * k[kt + ${col}];`),
    store: slices(v, (s, col, guard) => `if (${guard}) { dq[q0 + ${col}] = y${s}; }`),
  }),
});

export const attentionDkv = defineKernel({
  name: "attention_dkv",
  source: dkvSource,
  bindings: {
    ...qkv,
    keys: "read u32",
    stats: "read f32",
    dout: "read f32",
    dk: "write f32",
    dv: "write f32",
  },
  params,
  variants,
  snippets: () => [constants, seeingHeads],
  blocks: (v) => ({
    zero: slices(v, (s) => `var yk${s} = 0.0; var yv${s} = 0.0;`),
    dots: dot(v, (d) => `s += q[qi + ${d}] * k[at + ${d}]; dp += dout[qi + ${d}] * v[at + ${d}];`),
    values: slices(v, (s, col) => `yk${s} += ws * q[qt + ${col}]; yv${s} += wp * dout[qt + ${col}];`),
    store: slices(
      v,
      (s, col, guard) => `if (${guard}) { dk[at + ${col}] = yk${s}; dv[at + ${col}] = yv${s}; }`,
    ),
  }),
});
