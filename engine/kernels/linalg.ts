/**
 * Kernels of engine/linalg: blocked Cholesky and triangular solves on row panels, in f64 or f32. A kernel
 * exists once a precision, because bindings are typed; the WGSL says `real` and a snippet says what that is.
 */
import eft from "../../shaders/lib/eft.wgsl" with { type: "text" };
import symmetricSource from "../../shaders/linalg/symmetric_product.wgsl" with { type: "text" };
import cholBlock from "../../shaders/linalg/cholesky_block.wgsl" with { type: "text" };
import cholPanel from "../../shaders/linalg/cholesky_panel.wgsl" with { type: "text" };
import expandSource from "../../shaders/linalg/panel_expand.wgsl" with { type: "text" };
import diagonalSource from "../../shaders/linalg/diagonal.wgsl" with { type: "text" };
import loadSource from "../../shaders/linalg/panel_load.wgsl" with { type: "text" };
import solveBlockSource from "../../shaders/linalg/solve_block.wgsl" with { type: "text" };
import solveUpdateSource from "../../shaders/linalg/solve_update.wgsl" with { type: "text" };
import { defineKernel, type Kernel, unroll } from "../gpu/kernel.ts";

/** The precision of a factorisation. */
export type Real = "f32" | "f64";

/** What every kernel of one precision shares. */
export function precision(real: Real) {
  return {
    snippets: () => [`alias real = ${real};`],
    features: () => real === "f64" ? ["shader-f64" as const] : [],
  };
}

function both(make: (real: Real) => Kernel): Record<Real, Kernel> {
  return { f32: make("f32"), f64: make("f64") };
}

/** Factors a 32×32 diagonal block. Grid [1, 1, 1]. */
export const choleskyBlock = both((real) =>
  defineKernel({
    name: `cholesky_block_${real}`,
    source: cholBlock,
    bindings: { panel: `update ${real}`, pt: `write ${real}`, status: "update u32" },
    params: { k0: "u32", slot: "u32", ld: "u32", panelRow: "u32", panelLd: "u32", least: "f32" },
    ...precision(real),
  })
);

/** Solves the rows below a diagonal block, 64 rows a workgroup. */
export const choleskyPanel = both((real) =>
  defineKernel({
    name: `cholesky_panel_${real}`,
    source: cholPanel,
    bindings: { panel: `update ${real}`, pt: `update ${real}` },
    params: {
      k0: "u32",
      slot: "u32",
      ld: "u32",
      rowBegin: "u32",
      rowEnd: "u32",
      panelRow: "u32",
      panelLd: "u32",
    },
    ...precision(real),
  })
);

/** Solves a 64×64 diagonal block for all right-hand sides, 64 of them a workgroup. */
export const solveBlock = both((real) =>
  defineKernel({
    name: `solve_block_${real}`,
    source: solveBlockSource,
    bindings: { panel: `read ${real}`, b: `update ${real}` },
    params: { k0: "u32", m: "u32", panelRow: "u32", panelLd: "u32" },
    variants: { BACK: [false, true] },
    ...precision(real),
  })
);

/** Subtracts what the last solved block gives to other rows; 64 × 4 rows × COLS elements a workgroup. */
export const solveUpdate = both((real) =>
  defineKernel({
    name: `solve_update_${real}`,
    source: solveUpdateSource,
    bindings: { panel: `read ${real}`, b: `update ${real}` },
    params: {
      k0: "u32",
      m: "u32",
      rowBegin: "u32",
      rowEnd: "u32",
      origin: "u32",
      baseRow: "u32",
      rowStride: "u32",
      stepStride: "u32",
    },
    variants: { COLS: [1, 4] },
    blocks: ({ COLS }) => {
      const cols = COLS as number;
      const cell = (line: (r: number, c: number) => string) =>
        unroll(4, (r) => unroll(cols, (c) => line(r, c)));
      return {
        zero: cell((r, c) => `var y${r}_${c} = real(0);`),
        products: [
          unroll(4, (r) => `let l${r} = panel[l + ${r}u * p.rowStride];`),
          unroll(cols, (c) => `let x${c} = b[x + ${c}u];`),
          cell((r, c) => `y${r}_${c} += l${r} * x${c};`),
        ].join("\n"),
        store: cell((r, c) => `b[at + ${r}u * p.m + ${c}u] -= y${r}_${c};`),
      };
    },
    ...precision(real),
  })
);

/** Which numbers a copy reads and writes. */
export type Load = "f32→f32" | "f32→f64" | "f64→f64";

function loader(src: Real, real: Real): Kernel {
  return defineKernel({
    name: `panel_load_${src}_${real}`,
    source: loadSource,
    bindings: {
      src: `read ${src}`,
      lo: `read ${src}`,
      scale: "read f32",
      diagonal: `read ${real}`,
      panel: `write ${real}`,
    },
    params: {
      n: "u32",
      rowBegin: "u32",
      rowEnd: "u32",
      srcRow: "u32",
      srcLd: "u32",
      panelRow: "u32",
      panelLd: "u32",
    },
    variants: { LO: [false, true] },
    ...precision(real),
  });
}

/** Copies and scales rows of a matrix into a panel. Grid [columns / 64, rows, 1]. */
export const panelLoad: Record<Load, Kernel> = {
  "f32→f32": loader("f32", "f32"),
  "f32→f64": loader("f32", "f64"),
  "f64→f64": loader("f64", "f64"),
};

/** Gathers a matrix's diagonal, 64 rows a workgroup. */
export const diagonal = both((real) =>
  defineKernel({
    name: `diagonal_${real}`,
    source: diagonalSource,
    bindings: { src: `read ${real}`, y: `update ${real}` },
    params: { rowBegin: "u32", rowEnd: "u32", srcRow: "u32", srcLd: "u32" },
    ...precision(real),
  })
);

/** A symmetric product with two-float numbers; an invocation an element of Y, 64 a workgroup. */
export const symmetricProduct = defineKernel({
  name: "symmetric_product",
  source: symmetricSource,
  bindings: {
    c: "read f32",
    lo: "read f32",
    x: "read vec2<f32>",
    y: "update vec2<f32>",
    zero: "read u32",
  },
  params: {
    m: "u32",
    rowBegin: "u32",
    rowEnd: "u32",
    panelRow: "u32",
    panelEnd: "u32",
    panelLd: "u32",
  },
  variants: { MIRROR: [false, true], LO: [false, true] },
  snippets: () => [eft],
});

/** A triangle's panel written into a shard of a dense matrix. Grid [columns / 64, rows, 1]. */
export const panelExpand = defineKernel({
  name: "panel_expand",
  source: expandSource,
  bindings: { c: "read f32", lo: "read f32", y: "update f32" },
  params: { n: "u32", rowBegin: "u32", rowEnd: "u32", panelRow: "u32", panelLd: "u32", weight: "f32" },
});
