/** Entries in clusters, and the low-rank maps that go with them (MELO). */
import { GpuError } from "../gpu/errors.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { nearestMember, ownColumnsKernel } from "../kernels/lookup.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/** Members of clusters, one row each. */
export interface Members {
  /** f32 [n]: the radius of the member's cluster. */
  readonly radius: Tensor;
  /** u32 [n]: the first member of its cluster. */
  readonly cluster: Tensor;
}

/**
 * into[s] = the nearest member of the cluster with the nearest centre, where that is within its radius, else
 * NO_ENTRY; distances of prompts to the members' centres and to themselves [S, n], into u32 [S]. Outside the tape.
 * @throws {GpuError} when the sizes do not fit
 */
export function nearestInCluster(
  ctx: Ctx,
  toCenter: Tensor,
  toKey: Tensor,
  { radius, cluster }: Members,
  into: Tensor,
): void {
  const [count, n] = toCenter.shape;
  if (sizeOf(toKey.shape) !== count * n || radius.shape[0] !== n || cluster.shape[0] !== n) {
    throw new GpuError(`Cannot choose by ${describe(toCenter)}, ${describe(toKey)} and ${describe(radius)}`);
  }
  ctx.r.dispatch(nearestMember, {
    bind: {
      to_center: storageOf(toCenter),
      to_key: storageOf(toKey),
      radius: storageOf(radius),
      cluster: storageOf(cluster),
      choice: storageOf(into),
    },
    params: { count, n },
    grid: [Math.ceil(count / 64), 1, 1],
  });
}

/**
 * x [R, n·rank] with zeros in all columns but those of the entry that a row's sequence has chosen; choice u32 [S],
 * sequence u32 [R]. Gradient to x.
 */
export function ownColumns(ctx: Ctx, x: Tensor, choice: Tensor, sequence: Tensor, rank: number): Tensor {
  const y = temp(ctx, `own columns of ${x.label}`, x.shape);
  const n = sizeOf(x.shape);
  const pass = (from: Tensor, to: Tensor, ACC: boolean) =>
    ctx.r.dispatch(ownColumnsKernel, {
      variant: { ACC },
      bind: {
        x: storageOf(from),
        choice: storageOf(choice),
        sequence: storageOf(sequence),
        y: storageOf(to),
      },
      params: { n, width: matrixOf(x).cols, rank },
      grid: elementGrid(n),
    });
  pass(x, y, false);
  const { tape } = ctx;
  if (tape?.needs(x)) {
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      const { grad, accumulate } = gradTarget(ctx, x);
      pass(dy, grad, accumulate);
    });
  }
  return y;
}
