/**
 * Linear layers: a stored matrix with its orientation carried explicitly, an optional bias, and low-rank
 * overlays on top. Edits live in the overlays; the stored bytes are never touched.
 */
import { GpuError } from "../gpu/errors.ts";
import { describe, matrixOf, type Shard, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { passGrad } from "./elementwise.ts";
import { matmul, matmulRaw } from "./matmul.ts";
import { addColumnSum } from "./rows.ts";

/** ΔW = left · rightᵀ as a map from inputs to outputs, in f32. */
export interface Overlay {
  /** [out, rank] */
  readonly left: Tensor;
  /** [in, rank] */
  readonly right: Tensor;
}

/** A linear map y = W x + b. */
export interface Weight {
  /** The role, for example `layer.3.mlp.down`. */
  readonly role: string;
  /** The tensor's name in the checkpoint. */
  readonly name: string;
  /** As stored, possibly in row shards. */
  readonly matrix: Tensor;
  /** `out_in`: nn.Linear; `in_out`: GPT-2's Conv1D. */
  readonly layout: "out_in" | "in_out";
  readonly out: number;
  readonly in: number;
  /** [out] in f32. */
  readonly bias?: Tensor;
  /** Applied in order; the list is shared by everybody who holds the weight. */
  readonly overlays: Overlay[];
}

/**
 * y = x Wᵀ + b (+ residual) with x [R, in] → [R, out]. Gradients to x, residual, matrix, bias and overlays
 * where asked for. Kept for backward: x, only when a weight gradient is asked for.
 */
export function linear(
  ctx: Ctx,
  x: Tensor,
  w: Weight,
  options: { residual?: Tensor; label?: string } = {},
): Tensor {
  const { rows, cols } = matrixOf(x);
  if (cols !== w.in) {
    throw new GpuError(`Cannot apply ${w.role} [${w.out}, ${w.in}] to ${describe(x)}: inner sizes differ`);
  }
  const { residual } = options;
  const y = temp(ctx, options.label ?? w.role, [rows, w.out]);
  applyMatrix(ctx, x, w, y, residual);
  const inner = w.overlays.map(({ left, right }) => {
    const t = temp(ctx, `${w.role} overlay`, [rows, right.shape[1]]);
    matmul(ctx, "nn", x, right, t);
    matmul(ctx, "nt", t, left, y, { accumulate: true });
    return t;
  });
  const { tape } = ctx;
  const overlays = [...w.overlays];
  const parts = overlays.flatMap((o) => [o.left, o.right]);
  if (tape?.needs(x, residual, w.matrix, w.bias, ...parts)) {
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      overlays.forEach((overlay, i) => overlayBackward(ctx, x, dy, inner[i], overlay));
      if (tape.needs(w.matrix)) weightGradient(ctx, x, dy, w);
      if (w.bias && tape.needs(w.bias)) addColumnSum(ctx, dy, w.bias);
      if (tape.needs(x)) inputGradient(ctx, x, dy, w);
      // Last: dy may become the residual's gradient, to which earlier ops add in place.
      if (residual && tape.needs(residual)) passGrad(ctx, residual, dy);
    });
  }
  return y;
}

function applyMatrix(ctx: Ctx, x: Tensor, w: Weight, y: Tensor, residual?: Tensor): void {
  const R = matrixOf(x).rows;
  w.matrix.shards.forEach((shard, i) => {
    const b = { storage: shard.storage, dtype: w.matrix.dtype };
    if (w.layout === "out_in") {
      const shape = { M: R, N: shard.rows, K: w.in, lda: w.in, ldb: w.in, ldc: w.out, cOffset: shard.row };
      const epilogue = { bias: w.bias, biasOffset: shard.row, residual };
      matmulRaw(ctx, "nt", storageOf(x), b, storageOf(y), shape, epilogue);
    } else {
      const shape = { M: R, N: w.out, K: shard.rows, lda: w.in, ldb: w.out, ldc: w.out, aOffset: shard.row };
      const epilogue = i === 0 ? { bias: w.bias, residual } : { accumulate: true };
      matmulRaw(ctx, "nn", storageOf(x), b, storageOf(y), shape, epilogue);
    }
  });
}

/** dx (+)= dy W. */
function inputGradient(ctx: Ctx, x: Tensor, dy: Tensor, w: Weight): void {
  const { grad, accumulate } = gradTarget(ctx, x);
  const R = matrixOf(dy).rows;
  w.matrix.shards.forEach((shard, i) => {
    const b = { storage: shard.storage, dtype: w.matrix.dtype };
    if (w.layout === "out_in") {
      const shape = { M: R, N: w.in, K: shard.rows, lda: w.out, ldb: w.in, ldc: w.in, aOffset: shard.row };
      const more = { accumulate: accumulate || i > 0 };
      matmulRaw(ctx, "nn", storageOf(dy), b, storageOf(grad), shape, more);
    } else {
      const shape = { M: R, N: shard.rows, K: w.out, lda: w.out, ldb: w.out, ldc: w.in, cOffset: shard.row };
      matmulRaw(ctx, "nt", storageOf(dy), b, storageOf(grad), shape, { accumulate });
    }
  });
  for (const { left, right } of w.overlays) {
    const t = temp(ctx, `d ${w.role} overlay`, [R, left.shape[1]]);
    matmul(ctx, "nn", dy, left, t);
    matmul(ctx, "nt", t, right, grad, { accumulate: true });
  }
}

/** dW (+)= dyᵀ x in the stored orientation, shard by shard of the gradient. */
function weightGradient(ctx: Ctx, x: Tensor, dy: Tensor, w: Weight): void {
  const { grad, accumulate } = gradTarget(ctx, w.matrix);
  const R = matrixOf(x).rows;
  const [a, aCols, b, bCols] = w.layout === "out_in" ? [dy, w.out, x, w.in] : [x, w.in, dy, w.out];
  grad.shards.forEach((shard: Shard) => {
    const shape = { M: shard.rows, N: bCols, K: R, lda: aCols, ldb: bCols, ldc: bCols, aOffset: shard.row };
    const right = { storage: storageOf(b), dtype: b.dtype };
    matmulRaw(ctx, "tn", storageOf(a), right, shard.storage, shape, { accumulate });
  });
}

/** dLeft (+)= dyᵀ (x·right), dRight (+)= xᵀ (dy·left), where asked for: what LoRA trains. */
function overlayBackward(ctx: Ctx, x: Tensor, dy: Tensor, inner: Tensor, { left, right }: Overlay): void {
  const tape = ctx.tape!;
  if (tape.needs(left)) {
    const { grad, accumulate } = gradTarget(ctx, left);
    matmul(ctx, "tn", dy, inner, grad, { accumulate });
  }
  if (tape.needs(right)) {
    const t = temp(ctx, "dy·left", [matrixOf(dy).rows, left.shape[1]]);
    matmul(ctx, "nn", dy, left, t);
    const { grad, accumulate } = gradTarget(ctx, right);
    matmul(ctx, "tn", x, t, grad, { accumulate });
  }
}
