/** Kernels that take vectors into or out of a Cholesky factor, in f64 or f32. */
import blockSource from "../../shaders/linalg/rotate_block.wgsl" with { type: "text" };
import rowsSource from "../../shaders/linalg/rotate_rows.wgsl" with { type: "text" };
import { defineKernel, unroll, type Variant } from "../gpu/kernel.ts";
import { precision, type Real } from "./linalg.ts";

const variants = { DOWN: [false, true] } as const;

/** One turn of an element l of the factor and an element v of a vector; see rotate_block.wgsl. */
function turn(down: boolean, l: string, v: string, c: string, s: string): string {
  return down
    ? `${l} = (${l} - ${s} * ${v}) / ${c}; ${v} = ${c} * ${v} - ${s} * ${l};`
    : `let o${v} = ${v}; ${v} = ${c} * ${v} - ${s} * ${l}; ${l} = ${c} * ${l} + ${s} * o${v};`;
}

function blockTurn({ DOWN }: Variant): Record<string, string> {
  return {
    turn: [
      "var v = x[word];",
      "let c = turns[at];",
      "let s = turns[at + 1u];",
      turn(DOWN as boolean, "l", "v", "c", "s"),
      "x[word] = v;",
    ].join("\n"),
  };
}

/** Four vectors q meet four rows a. */
function rowTurns({ DOWN }: Variant): Record<string, string> {
  const cell = (line: (q: number, a: number) => string) => unroll(4, (q) => unroll(4, (a) => line(q, a)));
  return {
    vectors: cell((q, a) => `var v${q}_${a} = x[word + ${q}u * p.ld + ${a}u];`),
    columns: unroll(4, (a) => `var l${a} = panel[line + ${a}u * p.panelLd + j];`),
    turns: unroll(4, (q) =>
      `let c${q} = turns[at + ${2 * q}u];\nlet s${q} = turns[at + ${2 * q + 1}u];\n` +
      unroll(4, (a) => turn(DOWN as boolean, `l${a}`, `v${q}_${a}`, `c${q}`, `s${q}`))),
    keep: unroll(4, (a) => `panel[line + ${a}u * p.panelLd + j] = l${a};`),
    store: cell((q, a) => `x[word + ${q}u * p.ld + ${a}u] = v${q}_${a};`),
  };
}

function block(real: Real) {
  return defineKernel({
    name: `rotate_block_${real}`,
    source: blockSource,
    bindings: {
      panel: `update ${real}`,
      x: `update ${real}`,
      turns: `update ${real}`,
      status: "update u32",
    },
    params: { k0: "u32", count: "u32", ld: "u32", panelRow: "u32", panelLd: "u32", least: "f32" },
    variants,
    blocks: blockTurn,
    ...precision(real),
  });
}

function rows(real: Real) {
  return defineKernel({
    name: `rotate_rows_${real}`,
    source: rowsSource,
    bindings: { panel: `update ${real}`, x: `update ${real}`, turns: `read ${real}` },
    params: {
      k0: "u32",
      count: "u32",
      ld: "u32",
      rowBegin: "u32",
      rowEnd: "u32",
      panelRow: "u32",
      panelLd: "u32",
    },
    variants,
    blocks: rowTurns,
    ...precision(real),
  });
}

/** A diagonal block. Grid [1, 1, 1]. */
export const rotateBlock = { f32: block("f32"), f64: block("f64") };

/** The rows below it, 256 a workgroup. */
export const rotateRows = { f32: rows("f32"), f64: rows("f64") };
