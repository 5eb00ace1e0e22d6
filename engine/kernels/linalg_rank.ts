/**
 * The rank-K update of a lower triangle, C ∓= AᵀA: the bulk of a Cholesky factorisation and of a second
 * moment. Three families (subgroup, register, tiled) and three epilogues (minus, plus, two-float plus).
 */
import eft from "../../shaders/lib/eft.wgsl" with { type: "text" };
import storeMinus from "../../shaders/linalg/store_minus.wgsl" with { type: "text" };
import storePlus from "../../shaders/linalg/store_plus.wgsl" with { type: "text" };
import storeTwoFloat from "../../shaders/linalg/store_two_float.wgsl" with { type: "text" };
import registerSource from "../../shaders/linalg/rank_update_register.wgsl" with { type: "text" };
import subgroupSource from "../../shaders/linalg/rank_update_subgroup.wgsl" with { type: "text" };
import tile from "../../shaders/linalg/tile.wgsl" with { type: "text" };
import tiledSource from "../../shaders/linalg/rank_update_tiled.wgsl" with { type: "text" };
import type { Gpu } from "../gpu/device.ts";
import { type Binding, defineKernel, type Kernel, unroll } from "../gpu/kernel.ts";
import { precision, type Real } from "./linalg.ts";

/** What becomes of the product: subtracted, added, or added to a two-float accumulator. */
export type Epilogue = "minus" | "plus" | "twoFloat";

/** How the product is computed: see the headers of the three sources. */
export type Family = "subgroup" | "register" | "tiled";

const params = {
  K: "u32",
  ld: "u32",
  aOffset: "u32",
  /** The last valid column of A. */
  last: "u32",
  rowBegin: "u32",
  rowEnd: "u32",
  colBegin: "u32",
  colEnd: "u32",
  panelRow: "u32",
  panelLd: "u32",
  tri: "u32",
  first: "u32",
} as const;

type Cell = (line: (r: number, c: number) => string) => string;

/** Eight rows × eight columns an invocation: best of 4×4, 8×4, 4×8 and 8×8 in f64 on llvmpipe. */
function registerBlocks(): Record<string, string> {
  const cell: Cell = (line) => unroll(8, (r) => unroll(8, (c) => line(r, c)));
  return {
    addresses: [
      unroll(8, (r) => `let i${r} = min(row0 + ${r}u, p.last);`),
      unroll(8, (c) => `let j${c} = min(col0 + ${8 * c}u, p.last);`),
    ].join("\n"),
    zero: cell((r, c) => `var y${r}_${c} = real(0);`),
    products: [
      unroll(8, (r) => `let s${r} = a[at + i${r}];`),
      unroll(8, (c) => `let w${c} = a[at + j${c}];`),
      cell((r, c) => `y${r}_${c} += s${r} * w${c};`),
    ].join("\n"),
    store: cell((r, c) => `store(row0 + ${r}u, col0 + ${8 * c}u, y${r}_${c});`),
  };
}

function subgroupBlocks(): Record<string, string> {
  const cell: Cell = (line) => unroll(16, (r) => unroll(2, (c) => line(r, c)));
  return {
    addresses: [
      unroll(16, (r) => `let i${r} = min(row0 + ${r}u, p.last);`),
      unroll(2, (c) => `let j${c} = min(col0 + ${8 * c}u, p.last);`),
    ].join("\n"),
    zero: cell((r, c) => `var y${r}_${c} = 0.0;`),
    weights: unroll(2, (c) => unroll(8, (k) => `let w${c}_${k} = a[at + ${k}u * p.ld + j${c}];`)),
    products: unroll(16, (r) =>
      `let v${r} = a[mine + i${r}];\n` +
      unroll(8, (k) =>
        `let s${r}_${k} = subgroupBroadcast(v${r}, ${k}u); ` +
        `y${r}_0 += s${r}_${k} * w0_${k}; y${r}_1 += s${r}_${k} * w1_${k};`)),
    tail: [
      unroll(2, (c) => `let w${c} = a[at + j${c}];`),
      unroll(16, (r) => `let s${r} = a[at + i${r}];`),
      cell((r, c) => `y${r}_${c} += s${r} * w${c};`),
    ].join("\n"),
    store: cell((r, c) => `store(row0 + ${r}u, col0 + ${8 * c}u, y${r}_${c});`),
  };
}

function tiledBlocks(): Record<string, string> {
  const cell: Cell = (line) => unroll(4, (r) => unroll(4, (c) => line(r, c)));
  return {
    zero: cell((r, c) => `var y${r}_${c} = real(0);`),
    products: [
      unroll(4, (r) => `let s${r} = left[k][y + ${16 * r}u];`),
      unroll(4, (c) => `let w${c} = right[k][x + ${16 * c}u];`),
      cell((r, c) => `y${r}_${c} += s${r} * w${c};`),
    ].join("\n"),
    store: cell((r, c) => `store(row0 + y + ${16 * r}u, col0 + x + ${16 * c}u, y${r}_${c});`),
  };
}

/** What an epilogue is called in kernel names, and its WGSL. */
const EPILOGUES: Record<Epilogue, { name: string; snippets: string[] }> = {
  minus: { name: "minus", snippets: [storeMinus] },
  plus: { name: "plus", snippets: [storePlus] },
  twoFloat: { name: "two_float", snippets: [eft, storeTwoFloat] },
};

const FAMILIES: Record<Family, Pick<Kernel, "source" | "blocks">> = {
  subgroup: { source: subgroupSource, blocks: subgroupBlocks },
  register: { source: registerSource, blocks: registerBlocks },
  tiled: { source: tiledSource, blocks: tiledBlocks },
};

function declare(family: Family, epilogue: Epilogue, real: Real): Kernel {
  const plain: Record<string, Binding> = { a: `read ${real}`, c: `update ${real}` };
  const bindings = epilogue === "twoFloat"
    ? { ...plain, lo: "update f32" as const, zero: "read u32" as const }
    : plain;
  const shared = precision(real);
  const { name, snippets } = EPILOGUES[epilogue];
  return defineKernel({
    name: `rank_update_${family}_${name}_${real}`,
    bindings,
    params,
    ...FAMILIES[family],
    snippets: () => [...shared.snippets(), tile, ...snippets],
    features: () => family === "subgroup" ? ["subgroups"] : shared.features(),
  });
}

const declared = new Map<string, Kernel>();

/** The kernel of a family, epilogue and precision. Tiles of 64×64, one a workgroup. */
export function rankUpdateKernel(family: Family, epilogue: Epilogue, real: Real): Kernel {
  const key = `${family} ${epilogue} ${real}`;
  let kernel = declared.get(key);
  if (!kernel) declared.set(key, kernel = declare(family, epilogue, real));
  return kernel;
}

/** The fastest family on a device. */
export function rankUpdateFamily(gpu: Gpu, real: Real): Family {
  if (gpu.class === "gpu") return "tiled";
  return gpu.subgroupSize === 8 && real === "f32" ? "subgroup" : "register";
}
