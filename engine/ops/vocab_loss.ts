/**
 * The language-model head and its losses. Logits are made in chunks of vocabulary columns and reduced at
 * once, so `[rows, vocab]` exists only when it is asked for ({@link logits}) or when one chunk holds it all.
 */
import { GpuError } from "../gpu/errors.ts";
import {
  logSoftmaxKernel,
  vocabGrad,
  vocabLossKernel,
  vocabScoresKernel,
  vocabState,
} from "../kernels/loss.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { linear, type Weight } from "./linear.ts";
import { emptyBuffer, matmul, matmulRaw } from "./matmul.ts";

/** What each row of {@link vocabLoss} wants. */
export interface VocabTargets {
  /** u32 [R]: the wanted token of each row; ignored in KL rows. */
  targets: Tensor;
  /** f32 [R]: what the row's loss is multiplied by. */
  weights: Tensor;
  /** The last `kl.rows` rows are KL rows: KL(p ‖ q) with log q given, [rows, vocab]; `reversed`, KL(q ‖ p). */
  kl?: { rows: number; reference: Tensor; reversed?: boolean };
  /** u32, one a row before the KL rows: receives each one's likeliest token, the lowest among equals. */
  best?: Tensor;
  /** Columns at a time. Default: as many as keep a chunk of logits within 16 MiB. */
  chunk?: number;
}

/** All logits of the given rows: h [R, D] → [R, vocab]. For generation and for captured references. */
export function logits(ctx: Ctx, h: Tensor, head: Weight): Tensor {
  return linear(ctx, h, head, { label: "logits" });
}

/** Row-wise log-probabilities of logits, into a given tensor of the same shape. No gradient. */
export function logSoftmax(ctx: Ctx, z: Tensor, into: Tensor): void {
  const { rows, cols } = matrixOf(z);
  const bind = { logits: storageOf(z), out: storageOf(into) };
  ctx.r.dispatch(logSoftmaxKernel, { bind, params: { cols }, grid: [rows, 1, 1] });
}

const CHUNK_BYTES = 16 << 20;

/**
 * loss[r] = weight[r]·(−log softmax(h Wᵀ)[target]) or weight[r]·KL for h [R, D] after the final norm.
 * Returns the per-row losses [R]; the gradient of their sum flows to h. Gradients of the head are only
 * available when one chunk covers the vocabulary. With several chunks backward recomputes the logits.
 */
export function vocabLoss(ctx: Ctx, h: Tensor, head: Weight, want: VocabTargets): Tensor {
  const rows = matrixOf(h).rows;
  const vocab = head.out;
  const { targets, weights, kl } = want;
  if (targets.shape[0] !== rows || weights.shape[0] !== rows) {
    throw new GpuError(`${describe(h)} needs ${rows} targets and weights, got ${describe(targets)}`);
  }
  const klStart = rows - (kl?.rows ?? 0);
  const reference = kl ? storageOf(kl.reference) : emptyBuffer(ctx.gpu);
  const { state, ranges, kept } = runningState(ctx, h, head, { ...want, klStart });
  const variant = { REVERSED: kl?.reversed ?? false };
  const whole = ranges.length === 1;
  const loss = temp(ctx, "row losses", [rows]);
  ctx.r.dispatch(vocabLossKernel, {
    variant,
    bind: { state: storageOf(state), weights: storageOf(weights), loss: storageOf(loss) },
    params: { rows, klStart },
    grid: [Math.ceil(rows / 64), 1, 1],
  });
  if (want.best) {
    const logProbs = temp(ctx, "log-probabilities", [klStart]);
    ctx.r.dispatch(vocabScoresKernel, {
      bind: { state: storageOf(state), logProbs: storageOf(logProbs), best: storageOf(want.best) },
      params: { rows: klStart },
      grid: [Math.ceil(klStart / 64), 1, 1],
    });
  }
  const { tape } = ctx;
  const trained = [head.matrix, head.bias, ...head.overlays.flatMap((o) => [o.left, o.right])];
  if (tape?.needs(h, ...trained)) {
    if (!whole && tape.needs(...trained)) {
      throw new GpuError("Head weight gradients need the whole vocabulary in one chunk");
    }
    const toGradient = (z: Tensor, first: number, cols: number) =>
      ctx.r.dispatch(vocabGrad, {
        variant,
        bind: {
          state: storageOf(state),
          targets: storageOf(targets),
          weights: storageOf(weights),
          reference,
          logits: storageOf(z),
        },
        params: { cols, first, vocab, klStart },
        grid: [Math.ceil(cols / 64), rows, 1],
      });
    if (whole) {
      // `logits` registered the linear layer's own backward before this one: hand it its gradient.
      tape.defer(() => {
        toGradient(kept!, 0, vocab);
        tape.setGrad(kept!, kept!);
      });
    } else {
      tape.push(loss, () => {
        for (const range of ranges) {
          const z = chunkLogits(ctx, h, head, range);
          toGradient(z, range.first, range.cols);
          headInputGradient(ctx, h, z, head, range);
        }
      });
    }
  }
  return loss;
}

/** What {@link vocabScores} is asked: token `targets[i]` after row `rows[i]` of h; both u32 [n]. */
export interface ScoreTargets {
  rows: Tensor;
  targets: Tensor;
  /** As in {@link VocabTargets}. */
  chunk?: number;
}

/**
 * logProbs[i] = log softmax(h Wᵀ)[target] of the asked rows, f32 [n], and best[i] = their likeliest token, u32
 * [n], the lowest among equals; h [R, D] after the final norm. A row may be asked about several tokens: its
 * logits are made once. No gradient.
 * @throws {GpuError} when the lengths differ
 */
export function vocabScores(
  ctx: Ctx,
  h: Tensor,
  head: Weight,
  want: ScoreTargets,
  into: { logProbs: Tensor; best: Tensor },
): void {
  const { rows, targets } = want;
  const n = rows.shape[0];
  for (const t of [targets, into.logProbs, into.best]) {
    if (t.shape[0] !== n) {
      throw new GpuError(`${describe(rows)} asks for ${n} scores, ${describe(t)} has others`);
    }
  }
  const { state } = runningState(ctx, h, head, { ...want, klStart: n });
  ctx.r.dispatch(vocabScoresKernel, {
    bind: { state: storageOf(state), logProbs: storageOf(into.logProbs), best: storageOf(into.best) },
    params: { rows: n },
    grid: [Math.ceil(n / 64), 1, 1],
  });
}

interface StateOptions extends Pick<VocabTargets, "targets" | "kl" | "chunk"> {
  /** First KL row of the state. */
  klStart: number;
  /** u32: the row of h of each row of the state. Default: the same. */
  rows?: Tensor;
}

/** Makes the logits chunk by chunk and gathers the state of vocab_state.wgsl; keeps them when one is all. */
function runningState(ctx: Ctx, h: Tensor, head: Weight, options: StateOptions) {
  const { targets, kl, klStart, rows } = options;
  const vocab = head.out, n = targets.shape[0];
  const fits = Math.max(64, Math.floor(CHUNK_BYTES / 4 / matrixOf(h).rows / 64) * 64);
  const ranges = chunksOf(head, Math.min(vocab, options.chunk ?? fits));
  const state = temp(ctx, "vocab state", [n, 4]);
  let kept: Tensor | undefined;
  for (const range of ranges) {
    const z = ranges.length === 1 ? kept = logits(ctx, h, head) : chunkLogits(ctx, h, head, range);
    ctx.r.dispatch(vocabState, {
      variant: { INDEXED: rows !== undefined, REVERSED: kl?.reversed ?? false },
      bind: {
        logits: storageOf(z),
        // Without an index the targets stand in for the binding.
        rows: storageOf(rows ?? targets),
        targets: storageOf(targets),
        reference: kl ? storageOf(kl.reference) : emptyBuffer(ctx.gpu),
        state: storageOf(state),
      },
      params: { cols: range.cols, first: range.first, vocab, klStart },
      grid: [n, 1, 1],
    });
  }
  return { state, ranges, kept };
}

interface Range {
  first: number;
  cols: number;
  shard: number;
}

/** Column ranges of at most `chunk`, none crossing a row shard of the head. */
function chunksOf(head: Weight, chunk: number): Range[] {
  if (chunk >= head.out) return [{ first: 0, cols: head.out, shard: 0 }];
  if (head.layout !== "out_in") throw new GpuError(`Chunked losses need a head stored [vocab, width]`);
  return head.matrix.shards.flatMap((s, shard) => {
    const ranges: Range[] = [];
    for (let at = 0; at < s.rows; at += chunk) {
      ranges.push({ first: s.row + at, cols: Math.min(chunk, s.rows - at), shard });
    }
    return ranges;
  });
}

function rangeOf(head: Weight, { first, cols, shard }: Range) {
  const s = head.matrix.shards[shard];
  return { storage: s.storage, dtype: head.matrix.dtype, bOffset: (first - s.row) * head.in, cols };
}

function chunkLogits(ctx: Ctx, h: Tensor, head: Weight, range: Range): Tensor {
  const { rows } = matrixOf(h);
  const { bOffset, cols, ...b } = rangeOf(head, range);
  const z = temp(ctx, "logits chunk", [rows, cols]);
  const shape = { M: rows, N: cols, K: head.in, lda: head.in, ldb: head.in, ldc: cols, bOffset };
  const epilogue = { bias: head.bias, biasOffset: range.first };
  matmulRaw(ctx, "nt", storageOf(h), b, storageOf(z), shape, epilogue);
  for (const { left, right } of head.overlays) {
    const rank = right.shape[1];
    const t = temp(ctx, "head overlay", [rows, rank]);
    matmul(ctx, "nn", h, right, t);
    const part = { M: rows, N: cols, K: rank, lda: rank, ldb: rank, ldc: cols, bOffset: range.first * rank };
    const l = { storage: storageOf(left), dtype: left.dtype };
    matmulRaw(ctx, "nt", storageOf(t), l, storageOf(z), part, { accumulate: true });
  }
  return z;
}

function headInputGradient(ctx: Ctx, h: Tensor, dz: Tensor, head: Weight, range: Range): void {
  const { grad, accumulate } = gradTarget(ctx, h);
  const { rows } = matrixOf(h);
  const { bOffset, cols, ...b } = rangeOf(head, range);
  const shape = { M: rows, N: head.in, K: cols, lda: cols, ldb: head.in, ldc: head.in, bOffset };
  matmulRaw(ctx, "nn", storageOf(dz), b, storageOf(grad), shape, { accumulate });
  for (const { left, right } of head.overlays) {
    const rank = right.shape[1];
    const t = temp(ctx, "d head overlay", [rows, rank]);
    const part = { M: rows, N: rank, K: cols, lda: cols, ldb: rank, ldc: rank, bOffset: range.first * rank };
    const l = { storage: storageOf(left), dtype: left.dtype };
    matmulRaw(ctx, "nn", storageOf(dz), l, storageOf(t), part);
    matmul(ctx, "nt", t, right, grad, { accumulate: true });
  }
}
