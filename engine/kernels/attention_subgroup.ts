/** Attention for software drivers with subgroups of 8 lanes; see the header of its WGSL. */
import forwardSource from "../../shaders/attention/attention_subgroup.wgsl" with { type: "text" };
import dqSource from "../../shaders/attention/attention_dq_subgroup.wgsl" with { type: "text" };
import dkvSource from "../../shaders/attention/attention_dkv_subgroup.wgsl" with { type: "text" };
import seenKeys from "../../shaders/attention/seen_keys.wgsl" with { type: "text" };
import seeingHeads from "../../shaders/attention/seeing_heads.wgsl" with { type: "text" };
import { defineKernel, type Feature, type Kernel, unroll, type Variant } from "../gpu/kernel.ts";
import { attentionDkv, attentionDq, attentionForward } from "./attention.ts";

const LANES = 8;

/** A line for each part of four columns that a lane owns: every eighth. */
const parts = (v: Variant, line: (s: number) => string) =>
  unroll(Math.ceil(v.DIM as number / 4 / LANES), line);

/** A line for each lane, with the index of a part of its key or pair; past the end the other factor is zero. */
const eight = (line: (i: number, part: string) => string) =>
  unroll(LANES, (i) => line(i, `min(d + ${i}u, PARTS - 1u)`));

/** Each lane's numbers `names` in turn, for all parts; parts past the end repeat the last and are not stored. */
const inTurn = (
  v: Variant,
  names: string[],
  where: string,
  line: (s: number, t: number, at: string) => string,
) =>
  unroll(
    LANES,
    (t) =>
      [...names, where].map((name) => `let ${name}${t} = subgroupBroadcast(${name}, ${t}u);`).join(" ") +
      "\n" +
      parts(v, (s) => line(s, t, `${where}${t} + min(lane + ${LANES * s}u, PARTS - 1u)`)),
  );

const store = (v: Variant, line: (s: number, part: string) => string) =>
  parts(v, (s) => `if (lane + ${LANES * s}u < PARTS) { ${line(s, `lane + ${LANES * s}u`)} }`);

/** The same kernel with its f32 tensors, but for the stats, in parts of four. */
function wide(kernel: Kernel, source: string, snippet: string, blocks: Kernel["blocks"]): Kernel {
  const bindings = Object.fromEntries(
    Object.entries(kernel.bindings).map(([name, spec]) => [
      name,
      name === "stats" ? spec : spec.replace("f32", "vec4<f32>") as typeof spec,
    ]),
  );
  const { params, variants = {} } = kernel;
  return defineKernel({
    ...{ name: `${kernel.name}_subgroup`, source, bindings, params, blocks },
    variants: { DIM: variants.DIM },
    snippets: () => ["const PARTS: u32 = DIM / 4u;", snippet],
    features: (): Feature[] => ["subgroups"],
  });
}

export const attentionForwardSubgroup = wide(attentionForward, forwardSource, seenKeys, (v) => ({
  zero: parts(v, (s) => `var y${s} = vec4<f32>();`),
  dot: eight((i, part) => `s4 += subgroupBroadcast(mine, ${i}u) * k[at + ${part}];`),
  shrink: parts(v, (s) => `y${s} *= shrink;`),
  values: inTurn(v, ["weight"], "at", (s, t, at) => `y${s} += weight${t} * v[${at}];`),
  store: store(v, (s, part) => `o[q0 + ${part}] = y${s} * norm;`),
}));

export const attentionDqSubgroup = wide(attentionDq, dqSource, seenKeys, (v) => ({
  zero: parts(v, (s) => `var y${s} = vec4<f32>();`),
  dots: eight((i, part) =>
    `s4 += subgroupBroadcast(mine, ${i}u) * k[at + ${part}]; ` +
    `dp4 += subgroupBroadcast(dmine, ${i}u) * v[at + ${part}];`
  ),
  values: inTurn(v, ["ds"], "at", (s, t, at) => `y${s} += ds${t} * k[${at}];`),
  store: store(v, (s, part) => `dq[q0 + ${part}] = y${s};`),
}));

export const attentionDkvSubgroup = wide(attentionDkv, dkvSource, seeingHeads, (v) => ({
  zero: parts(v, (s) => `var yk${s} = vec4<f32>(); var yv${s} = vec4<f32>();`),
  dots: eight((i, part) =>
    `s4 += subgroupBroadcast(kmine, ${i}u) * q[qi + ${part}]; ` +
    `dp4 += subgroupBroadcast(vmine, ${i}u) * dout[qi + ${part}];`
  ),
  values: inTurn(
    v,
    ["ds", "prob"],
    "qi",
    (s, t, at) => `yk${s} += ds${t} * q[${at}]; yv${s} += prob${t} * dout[${at}];`,
  ),
  store: store(v, (s, part) => `dk[at + ${part}] = yk${s}; dv[at + ${part}] = yv${s};`),
}));
