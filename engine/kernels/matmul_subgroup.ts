/**
 * The matrix product of software drivers with subgroups of 8 lanes: see the header of its WGSL. Operands
 * whose rows start on multiples of four elements are loaded four words at a time; others, one by one.
 */
import source from "../../shaders/matmul/matmul_subgroup.wgsl" with { type: "text" };
import store1 from "../../shaders/matmul/subgroup_store1.wgsl" with { type: "text" };
import store4 from "../../shaders/matmul/subgroup_store4.wgsl" with { type: "text" };
import { defineKernel, type Kernel, unroll, type Variant } from "../gpu/kernel.ts";
import { epilogueVariants, LOAD_B, params, UNPACK4 } from "./matmul_common.ts";

/**
 * Words that one load (or store) of an operand moves: four where all its rows start on multiples of that, eight
 * (as four 64-bit words, f32 only) likewise. C stands for bias and residual, too.
 */
export interface Access {
  a: 1 | 4 | 8;
  b: 1 | 4 | 8;
  c: 1 | 4;
}

/** Declares name_0 … name_7. */
const eight = (name: string, value: (i: number) => string) =>
  unroll(8, (i) => `let ${name}_${i} = ${value(i)};`);

/** Loads name_0 … name_7 as four 64-bit words. */
function loadLong(name: string, array: string, at: string): string {
  const half = (i: number) => `${name}x.${"xyzw"[i >> 1]}${i & 1 ? " >> 32u" : ""}`;
  return `let ${name}x = ${array}[(${at}) / 8u];\n${eight(name, (i) => `bitcast<f32>(u32(${half(i)}))`)}`;
}

/** Loads name_0 … name_7 of f32 A from the element address `at`. */
function loadA(name: string, at: string, words: number): string {
  if (words === 8) return loadLong(name, "a", at);
  if (words === 1) return eight(name, (i) => `a[${at} + ${i}u]`);
  return [
    `let ${name}x0 = a[(${at}) / 4u]; let ${name}x1 = a[(${at}) / 4u + 1u];`,
    eight(name, (i) => `${name}x${i >> 2}.${"xyzw"[i & 3]}`),
  ].join("\n");
}

function loadB(name: string, at: string, dtype: string, words: number): string {
  if (words === 8) return loadLong(name, "b", at);
  if (words === 1) return eight(name, (i) => `load_b(${at} + ${i}u)`);
  const loads = dtype === "f32" ? [`b[(${at}) / 4u]`, `b[(${at}) / 4u + 1u]`] : [`b[(${at}) / 8u]`];
  const parts = loads.flatMap((_, j) => UNPACK4[dtype](`${name}x${j}`));
  return [
    ...loads.map((load, j) => `let ${name}x${j} = ${load};`),
    ...parts.map((part, h) => `let ${name}v${h} = ${part};`),
    eight(name, (i) => `${name}v${i >> 2}.${"xyzw"[i & 3]}`),
  ].join("\n");
}

/** from_i of lane j becomes to_j of lane i: three exchanges with the lane one, two and four away. */
function transpose(from: string, to: string): string {
  let names = Array.from({ length: 8 }, (_, i) => `${from}_${i}`);
  const lines: string[] = [];
  for (const step of [1, 2, 4]) {
    const next = names.map((_, i) => step === 4 ? `${to}_${i}` : `${from}_${step}_${i}`);
    for (let i = 0; i < 8; i++) {
      if (i & step) continue;
      const [x, y, t] = [names[i], names[i + step], `${from}_t${step}_${i}`];
      lines.push(
        `let ${t} = subgroupShuffle(select(${x}, ${y}, low${step}), lane ^ ${step}u);`,
        `let ${next[i]} = select(${t}, ${x}, low${step}); let ${
          next[i + step]
        } = select(${y}, ${t}, low${step});`,
      );
    }
    names = next;
  }
  return lines.join("\n");
}

/** Zeroes what lies past the end of K; `along` says whether the eight values or the lanes run along k. */
function cut(from: string, to: string, along: "values" | "lanes", tail: boolean): string {
  const index = (i: number) => along === "lanes" ? "lane" : `${i}u`;
  return eight(to, (i) => tail ? `select(0.0, ${from}_${i}, k + ${index(i)} < p.K)` : `${from}_${i}`);
}

function blocks(v: Variant, access: Access): Record<string, string> {
  const groups = v.GROUPS as number, cols = v.COLS as number, tail = v.TAIL as boolean;
  const dtype = v.dtype as string, nt = v.layout === "nt", tn = v.layout === "tn";
  const eachGroup = (line: (g: number) => string) => unroll(groups, line);
  const eachBlock = (line: (h: number) => string) => unroll(cols / 8, line);
  const cell = (line: (g: number, n: number) => string) => eachGroup((g) => unroll(cols, (n) => line(g, n)));
  const addresses = [
    eachGroup((g) =>
      tn
        ? `let a${g} = p.aOffset + lane * p.lda + row0 + ${8 * g}u;`
        : `let a${g} = p.aOffset + (row0 + lane + ${8 * g}u) * p.lda;`
    ),
    eachBlock((h) =>
      nt
        ? `let b${h} = p.bOffset + (col0 + lane + ${8 * h}u) * p.ldb;`
        : `let b${h} = p.bOffset + lane * p.ldb + col0 + ${8 * h}u;`
    ),
    tn ? [1, 2, 4].map((s) => `let low${s} = (lane & ${s}u) == 0u;`).join("\n") : "",
  ].join("\n");
  const loads = [
    eachGroup((g) =>
      [
        loadA(`u${g}`, `a${g} + k${tn ? " * p.lda" : ""}`, access.a),
        tn
          ? cut(`u${g}`, `v${g}`, "lanes", tail) + "\n" + transpose(`v${g}`, `s${g}`)
          : cut(`u${g}`, `s${g}`, "values", tail),
      ].join("\n")
    ),
    eachBlock((h) =>
      [
        loadB(`w${h}`, `b${h} + k${nt ? "" : " * p.ldb"}`, dtype, access.b),
        cut(`w${h}`, `t${h}`, nt ? "values" : "lanes", tail),
      ].join("\n")
    ),
  ].join("\n");
  // Column by column, so that only the accumulators of one column have to stay in registers.
  const products = unroll(cols, (n) =>
    unroll(8, (k) => {
      const [value, lane] = nt ? [k, n % 8] : [n % 8, k];
      return [
        `let z${n}_${k} = subgroupShuffle(t${n >> 3}_${value}, ${lane}u);`,
        ...Array.from({ length: groups }, (_, g) => `y${g}_${n} += s${g}_${k} * z${n}_${k};`),
      ].join(" ");
    }));
  const store = eachGroup((g) =>
    unroll(cols / 4, (q) => {
      const values = [0, 1, 2, 3].map((j) => `y${g}_${4 * q + j}`);
      return `store(row0 + lane + ${8 * g}u, col0 + ${4 * q}u, vec4(${values}));`;
    })
  );
  return { addresses, zero: cell((g, n) => `var y${g}_${n} = 0.0;`), loads, products, store };
}

function define(access: Access): Kernel {
  const c = access.c === 4 ? "vec4<f32>" : "f32";
  return defineKernel({
    name: `matmul_subgroup_a${access.a}b${access.b}c${access.c}`,
    source,
    bindings: {
      a: access.a === 8 ? "read vec4<u64>" : access.a === 4 ? "read vec4<f32>" : "read f32",
      b: access.b === 8 ? "read vec4<u64>" : access.b === 4 ? "read vec4<u32>" : "read u32",
      bias: `read ${c}`,
      residual: `read ${c}`,
      c: `write ${c}`,
    },
    params: { ...params, row0: "u32" },
    variants: {
      layout: ["nt", "nn", "tn"],
      dtype: access.b === 8 ? ["f32"] : ["f32", "f16", "bf16"],
      GROUPS: [4, 1, 2, 3, 5, 6],
      COLS: [32, 8, 16, 64],
      TAIL: [false, true],
      ...epilogueVariants,
    },
    snippets: (v) => [access.b === 1 ? LOAD_B[v.dtype as string] : "", access.c === 4 ? store4 : store1],
    blocks: (v) => blocks(v, access),
    features: () => access.b === 8 ? ["subgroups", "wgpu-shader-int64"] : ["subgroups"],
  });
}

/**
 * For `class: "cpu"` devices with subgroup size 8, fastest first; the last takes everything. An odd
 * vocabulary has rows of logits that start anywhere: as C in the head, as A in its gradient.
 */
export const matmulSubgroup: { access: Access; kernel: Kernel }[] = [
  { a: 8, b: 8, c: 4 } as const,
  { a: 8, b: 8, c: 1 } as const,
  { a: 4, b: 4, c: 4 } as const,
  { a: 4, b: 4, c: 1 } as const,
  { a: 1, b: 4, c: 4 } as const,
  { a: 1, b: 1, c: 1 } as const,
].map((access) => ({ access, kernel: define(access) }));
