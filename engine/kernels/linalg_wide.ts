/**
 * Kernels of the symmetric eigen-solver, in wide numbers: f64, or two-float numbers where a device has none.
 * The WGSL says `num` and calls `plus`, `times`, `mac`; a snippet says what those are.
 */
import eft from "../../shaders/lib/eft.wgsl" with { type: "text" };
import columnSource from "../../shaders/linalg/tridiagonal_column.wgsl" with { type: "text" };
import combineSource from "../../shaders/linalg/tridiagonal_combine.wgsl" with { type: "text" };
import dotsSource from "../../shaders/linalg/tridiagonal_dots.wgsl" with { type: "text" };
import finishSource from "../../shaders/linalg/tridiagonal_finish.wgsl" with { type: "text" };
import productSource from "../../shaders/linalg/tridiagonal_product.wgsl" with { type: "text" };
import reflectSource from "../../shaders/linalg/tridiagonal_reflect.wgsl" with { type: "text" };
import solveSource from "../../shaders/linalg/reflector_solve.wgsl" with { type: "text" };
import tile from "../../shaders/linalg/tile.wgsl" with { type: "text" };
import twoFloat from "../../shaders/linalg/wide_two_float.wgsl" with { type: "text" };
import wideF64 from "../../shaders/linalg/wide_f64.wgsl" with { type: "text" };
import wideProductSource from "../../shaders/linalg/wide_product.wgsl" with { type: "text" };
import { type Binding, defineKernel, type Element, type Kernel, unroll } from "../gpu/kernel.ts";

/** The numbers of a wide kernel. Either takes 8 bytes. */
export type Wide = "f64" | "twoFloat";

type Access = "read" | "write" | "update";

interface Declaration extends Pick<Kernel, "source" | "params" | "variants" | "blocks"> {
  name: string;
  bindings: Record<string, Access>;
  tiles?: boolean;
}

/** Declares a kernel once for each kind of number. */
function both({ name, bindings, tiles, ...rest }: Declaration): Record<Wide, Kernel> {
  const make = (wide: Wide) => {
    const element: Element = wide === "f64" ? "f64" : "vec2<f32>";
    const typed = Object.entries(bindings).map(([key, access]) =>
      [key, `${access} ${element}` as Binding] as const
    );
    const zero: Record<string, Binding> = wide === "f64" ? {} : { zero: "read u32" };
    return defineKernel({
      name: `${name}_${wide === "f64" ? "f64" : "two_float"}`,
      bindings: { ...Object.fromEntries(typed), ...zero },
      ...rest,
      snippets: () => [...(wide === "f64" ? [wideF64] : [eft, twoFloat]), ...(tiles ? [tile] : [])],
      features: () => wide === "f64" ? ["shader-f64"] : [],
    });
  };
  return { f64: make("f64"), twoFloat: make("twoFloat") };
}

/** C = AᵀB or C -= AᵀB with any strides; a tile of 64×64 a workgroup. Blocks of 8 suit software drivers. */
export const wideProduct = both({
  name: "wide_product",
  source: wideProductSource,
  bindings: { a: "read", b: "read", c: "update" },
  params: {
    K: "u32",
    aOffset: "u32",
    aStep: "u32",
    aLane: "u32",
    bOffset: "u32",
    bStep: "u32",
    bLane: "u32",
    rowBegin: "u32",
    rowEnd: "u32",
    colBegin: "u32",
    colEnd: "u32",
    panelRow: "u32",
    panelLd: "u32",
    tri: "u32",
    first: "u32",
  },
  variants: { BLOCK: [4, 8], SUBTRACT: [false, true] },
  tiles: true,
  blocks: ({ BLOCK }) => {
    const size = BLOCK as number;
    const side = 64 / size;
    const cell = (line: (r: number, c: number) => string) =>
      unroll(size, (r) => unroll(size, (c) => line(r, c)));
    return {
      addresses: [
        unroll(size, (r) => `let i${r} = p.aOffset + min(row0 + ${r}u, p.rowEnd - 1u) * p.aLane;`),
        unroll(size, (c) => `let j${c} = p.bOffset + min(col0 + ${side * c}u, p.colEnd - 1u) * p.bLane;`),
      ].join("\n"),
      zero: cell((r, c) => `var y${r}_${c} = number(0.0);`),
      products: [
        unroll(size, (r) => `let s${r} = a[i${r} + k * p.aStep];`),
        unroll(size, (c) => `let w${c} = b[j${c} + k * p.bStep];`),
        cell((r, c) => `y${r}_${c} = mac(y${r}_${c}, s${r}, w${c});`),
      ].join("\n"),
      store: cell((r, c) => `store(row0 + ${r}u, col0 + ${side * c}u, y${r}_${c});`),
    };
  },
});

/** The next column of a reduction; 64 rows a workgroup. */
export const tridiagonalColumn = both({
  name: "tridiagonal_column",
  source: columnSource,
  bindings: { a: "read", v: "read", w: "read", y: "update" },
  params: { j: "u32", t: "u32", ld: "u32", rowBegin: "u32", rowEnd: "u32", panelRow: "u32", panelLd: "u32" },
});

/** The reflector of a column. Grid [1, 1, 1]. */
export const tridiagonalReflect = both({
  name: "tridiagonal_reflect",
  source: reflectSource,
  bindings: { y: "read", v: "update", scalars: "update" },
  params: { j: "u32", t: "u32", n: "u32", ld: "u32" },
});

/** Partial sums of A v; a tile of 64×64 a workgroup. */
export const tridiagonalProduct = both({
  name: "tridiagonal_product",
  source: productSource,
  bindings: { a: "read", v: "read", parts: "update" },
  params: {
    t: "u32",
    ld: "u32",
    rowBegin: "u32",
    colBegin: "u32",
    panelRow: "u32",
    panelLd: "u32",
    tri: "u32",
    first: "u32",
  },
  tiles: true,
  blocks: () => ({
    zero: unroll(4, (r) => `var y${r} = number(0.0);`),
    clear: unroll(4, (r) => `y${r} = number(0.0);`),
    rows: unroll(4, (r) => `y${r} = mac(y${r}, a[at + ${r}u * p.panelLd], x);`),
    columns: unroll(4, (r) => `y${r} = mac(y${r}, a[at + ${r}u], x);`),
    keep: unroll(4, (r) => `shares[64u * share + mine + ${r}u] = y${r};`),
  }),
});

/** Dots of the block's vectors with the newest reflector; a workgroup a dot. */
export const tridiagonalDots = both({
  name: "tridiagonal_dots",
  source: dotsSource,
  bindings: { v: "read", w: "read", dots: "update" },
  params: { t: "u32", ld: "u32", begin: "u32" },
});

/** A v from its partial sums, less what this block has yet to subtract; 64 rows a workgroup. */
export const tridiagonalCombine = both({
  name: "tridiagonal_combine",
  source: combineSource,
  bindings: { parts: "read", v: "read", dots: "read", w: "update" },
  params: { j: "u32", t: "u32", ld: "u32", tileBegin: "u32" },
});

/** The second factor of the rank-two update. Grid [1, 1, 1]. */
export const tridiagonalFinish = both({
  name: "tridiagonal_finish",
  source: finishSource,
  bindings: { v: "read", scalars: "read", w: "update" },
  params: { j: "u32", t: "u32", ld: "u32" },
});

/** Y := T Y of a block of reflectors; 64 columns a workgroup. */
export const reflectorSolve = both({
  name: "reflector_solve",
  source: solveSource,
  bindings: { gram: "read", scalars: "read", y: "update" },
  params: { count: "u32", j0: "u32", ld: "u32", m: "u32" },
});
