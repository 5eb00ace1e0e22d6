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

/** Heads of one key head that a workgroup computes together: more share its loads, and take longer to compile. */
const SHARED = [1, 2, 3];
/** Columns of these heads at most. With 192, compiling takes 1.1 s of CPU. */
const COLUMNS = 192;

/** The most heads that are computed together. */
export function sharedHeads(heads: number, kvHeads: number, headDim: number): number {
  return SHARED.findLast((n) => n === 1 || heads / kvHeads % n === 0 && n * headDim <= COLUMNS)!;
}

const forward = wide(attentionForward, forwardSource, seenKeys, (v) => {
  const shared = v.SHARED as number, partsOfHead = v.DIM as number / 4;
  const eachHead = (line: (h: number) => string) => unroll(shared, line);
  const eachPart = (line: (part: number) => string) => unroll(partsOfHead, line);
  const eachKey = (line: (key: number) => string) => unroll(LANES, line);
  const keys = (name: string) => Array.from({ length: LANES }, (_, key) => `${name}_${key}`);
  return {
    load: eachHead((h) =>
      [
        eachPart((part) => `let q${h}_${part} = q[q0 + ${h * partsOfHead + part}u] * p.scale;`),
        eachPart((part) => `var y${h}_${part} = vec4<f32>();`),
        `var top${h} = -1e30; var total${h} = 0.0;`,
      ].join("\n")
    ),
    scores: [
      eachHead((h) => eachKey((key) => `var s${h}_${key} = 0.0;`)),
      eachPart((part) =>
        [
          `let k${part} = k[at + ${part}u];`,
          eachKey((key) =>
            [
              `let k${part}_${key} = subgroupShuffle(k${part}, ${key}u);`,
              eachHead((h) => `s${h}_${key} += dot(k${part}_${key}, q${h}_${part});`),
            ].join("\n")
          ),
        ].join("\n")
      ),
    ].join("\n"),
    weights: eachHead((h) =>
      [
        eachKey((key) => `let t${h}_${key} = select(-1e30, s${h}_${key}, base + ${key}u < count);`),
        `let top${h}_ = ${keys(`t${h}`).reduce((most, t) => `max(${most}, ${t})`, `top${h}`)};`,
        `let shrink${h} = exp(top${h} - top${h}_);`,
        eachKey((key) =>
          `let w${h}_${key} = select(0.0, exp(t${h}_${key} - top${h}_), base + ${key}u < count);`
        ),
        `total${h} = total${h} * shrink${h} + ${keys(`w${h}`).join(" + ")};`,
        `top${h} = top${h}_;`,
      ].join("\n")
    ),
    values: eachPart((part) =>
      [
        `let v${part} = v[at + ${part}u];`,
        eachHead((h) => `var u${h}_${part} = y${h}_${part} * shrink${h};`),
        eachKey((key) =>
          [
            `let v${part}_${key} = subgroupShuffle(v${part}, ${key}u);`,
            eachHead((h) => `u${h}_${part} += w${h}_${key} * v${part}_${key};`),
          ].join("\n")
        ),
        eachHead((h) => `y${h}_${part} = select(y${h}_${part}, u${h}_${part}, mine);`),
      ].join("\n")
    ),
    store: eachHead((h) =>
      [
        `let norm${h} = select(0.0, 1.0 / total${h}, total${h} > 0.0);`,
        eachPart((part) => `o[q0 + ${h * partsOfHead + part}u] = y${h}_${part} * norm${h};`),
        `stats[2u * (row * p.heads + head + ${h}u)] = top${h} + log(max(total${h}, 1e-37));`,
      ].join("\n")
    ),
  };
});
export const attentionForwardSubgroup = defineKernel({
  ...forward,
  params: { ...forward.params, rows: "u32" },
  variants: { ...forward.variants, SHARED },
});

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
