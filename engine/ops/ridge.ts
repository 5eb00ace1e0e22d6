/**
 * Least squares with a learned ridge, by its dual: what MALMEN joins many edits with (Tan et al. 2024, section 3;
 * memory-and-meta guide section 4). With keys K [N, in], differences D [N, out] and one row a token,
 *
 *   ΔW = (KᵀK + e^λ I)⁻¹ KᵀD = Kᵀ V,   V = (KKᵀ + e^λ I)⁻¹ D
 *
 * so a system of tokens × tokens is solved, whatever the width, and V with K are factors of ΔW.
 */
import { GpuError } from "../gpu/errors.ts";
import {
  keyedRowsBackwardKernel,
  keyedRowsKernel,
  maskGroupsKernel,
  ridgeFactorKernel,
  ridgeGradientKernel,
  ridgeSolveKernel,
} from "../kernels/hyper.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { fill, passGrad } from "./elementwise.ts";
import { matmul } from "./matmul.ts";

/** Rows of one system: the factor is made by one workgroup, n³/3 products. */
const MOST = 2048;

/**
 * (k_r · q_r) g_r of each row: k and q [rows, in], g [rows, out] → [rows, out]. Gradients to q and g; k is a
 * constant. Kept for backward: all three.
 */
export function keyedRows(ctx: Ctx, k: Tensor, q: Tensor, g: Tensor): Tensor {
  const { rows, cols: inner } = matrixOf(k), { cols: outer } = matrixOf(g);
  if (matrixOf(q).rows !== rows || matrixOf(q).cols !== inner || matrixOf(g).rows !== rows) {
    throw new GpuError(`${describe(k)}, ${describe(q)} and ${describe(g)} have no rows in common`);
  }
  const y = temp(ctx, `keyed ${g.label}`, g.shape);
  const variant = { WG: rowWorkgroup(ctx.gpu, Math.max(inner, outer)) };
  const given = { k: storageOf(k), q: storageOf(q), g: storageOf(g) };
  const rest = { variant, params: { inner, outer }, grid: [rows, 1, 1] as [number, number, number] };
  ctx.r.dispatch(keyedRowsKernel, { ...rest, bind: { ...given, y: storageOf(y) } });
  const { tape } = ctx;
  if (tape?.needs(q, g)) {
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      const [dq, dg] = [q, g].map((t) => temp(ctx, `d ${t.label}`, t.shape));
      const into = { dy: storageOf(dy), dq: storageOf(dq), dg: storageOf(dg) };
      ctx.r.dispatch(keyedRowsBackwardKernel, { ...rest, bind: { ...given, ...into } });
      passGrad(ctx, q, dq);
      passGrad(ctx, g, dg);
    });
  }
  return y;
}

/**
 * V = (KKᵀ + e^λ I)⁻¹ D with λ = lambda[at]; K [N, in], D [N, out], groups u32 [N] → [N, out]. Rows of different
 * groups know nothing of each other. Gradients to D and lambda[at]; K is a constant:
 *
 *   dD = (KKᵀ + e^λ I)⁻¹ dV      dλ = −e^λ ⟨dD, V⟩
 *
 * Kept for backward: the factor and V.
 * @throws {GpuError} for more rows than one system may have
 */
export function ridgeSolve(
  ctx: Ctx,
  K: Tensor,
  D: Tensor,
  groups: Tensor,
  { lambda, at }: { lambda: Tensor; at: number },
): Tensor {
  const { rows: n } = matrixOf(K), { cols: width } = matrixOf(D);
  if (n > MOST) throw new GpuError(`One system of ${n} rows is too large: ${MOST} at most`);
  if (matrixOf(D).rows !== n || groups.shape[0] !== n) {
    throw new GpuError(`${describe(D)} does not fit ${describe(K)}`);
  }
  const S = temp(ctx, "KKᵀ", [n, n]);
  matmul(ctx, "nt", K, K, S);
  ctx.r.dispatch(maskGroupsKernel, {
    bind: { row_group: storageOf(groups), key_group: storageOf(groups), t: storageOf(S) },
    params: { n: n * n, keys: n },
    grid: elementGrid(n * n),
  });
  const WG = rowWorkgroup(ctx.gpu, n);
  ctx.r.dispatch(ridgeFactorKernel, {
    variant: { WG },
    bind: { lambda: storageOf(lambda), s: storageOf(S) },
    params: { n, at },
    grid: [1, 1, 1],
  });
  const solve = (b: Tensor, label: string) => {
    const x = temp(ctx, label, b.shape);
    fill(ctx, x, 0);
    ctx.r.dispatch(ridgeSolveKernel, {
      bind: { l: storageOf(S), b: storageOf(b), x: storageOf(x) },
      params: { n, width },
      grid: [Math.ceil(width / 64), 1, 1],
    });
    return x;
  };
  const V = solve(D, "ridge solution");
  const { tape } = ctx;
  if (tape?.needs(D, lambda)) {
    tape.push(V, () => {
      const dV = tape.grad(V);
      if (!dV) return;
      const dD = solve(dV, `d ${D.label}`);
      if (tape.needs(lambda)) {
        const { grad, accumulate } = gradTarget(ctx, lambda);
        if (!accumulate) fill(ctx, grad, 0);
        const size = sizeOf(V.shape);
        ctx.r.dispatch(ridgeGradientKernel, {
          variant: { WG: rowWorkgroup(ctx.gpu, size) },
          bind: { a: storageOf(dD), b: storageOf(V), lambda: storageOf(lambda), y: storageOf(grad) },
          params: { n: size, at },
          grid: [1, 1, 1],
        });
      }
      passGrad(ctx, D, dD);
    });
  }
  return V;
}
