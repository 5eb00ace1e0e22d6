/** What an edit will take, before it starts: rows, memory, arithmetic. For `--dry-run`. */
import type { Dimensions } from "../engine/models/model.ts";
import type { TargetPlan } from "./methods.ts";
import { partsOf } from "./target_items.ts";
import type { TargetRequest } from "./targets.ts";

/** Sizes of one edit's target optimisation. */
export interface EditEstimate {
  /** Rows computed once. */
  prepareRows: number;
  /** Rows of every step, above the edited layer. */
  stepRows: number;
  /** Of these, the ones that reach the head. */
  lossRows: number;
  /** Device bytes beside the weights: caches, activations and gradients of a step, logits. */
  workBytes: number;
  /** Multiply-adds × 2 of one edit, all steps taken. */
  flops: number;
}

/**
 * Device bytes of C and its factor for keys of this width. Measured: 10 to 16 bytes an entry of C on the f64
 * and the compensated route, the fewer the wider.
 */
export function estimateSolver(width: number): number {
  return 12 * width * width;
}

/**
 * Estimates one edit; see the exact savings of the guide, section 14.
 * @param how the edited layer, the steps, and whether MLPs are gated: three maps instead of two. Default true
 */
export function estimateEdit(
  dims: Dimensions,
  request: TargetRequest,
  { layer, steps, gated = true }: { layer: number; steps: number; gated?: boolean },
): EditEstimate {
  const { width: D, inner: F, heads, kvHeads, headDim, vocab, layers } = dims;
  const parts = partsOf(request);
  const lengths = parts.flatMap(({ prompts, target }) =>
    prompts.map((p) => ({ all: p.ids.length + target.length - 1, before: p.subjectLast }))
  );
  lengths.push({ all: request.kl.subjectLast + 1, before: request.kl.subjectLast });
  const prepareRows = lengths.reduce((n, l) => n + l.all, 0);
  const stepRows = lengths.reduce((n, l) => n + l.all - l.before, 0);
  const lossRows = parts.reduce((n, { prompts, target }) => n + prompts.length * target.length, 1);
  const q = heads * headDim, kv = kvHeads * headDim;
  const block = D * q * 2 + 2 * D * kv + (gated ? 3 : 2) * D * F;
  const above = layers - layer - 1;
  const once = 2 * (prepareRows * block * (layer + 1) + (prepareRows - stepRows) * block * above);
  const step = 2 * 2 * (stepRows * block * above + lossRows * D * vocab);
  // Kept for backward in each block: the stream twice, norms, q, k, v, mixed, gate, up, key.
  const activations = stepRows * (6 * D + 2 * q + 2 * kv + 3 * F) * above;
  const floats = activations + 2 * prepareRows * kv * above + lossRows * vocab + prepareRows * (2 * D + F);
  return { prepareRows, stepRows, lossRows, workBytes: 4 * floats, flops: once + steps * step };
}

/** Device bytes of a plan's work: of its largest request, or of all that run together. */
export function workBytesOf(
  dims: Dimensions,
  { layer, steps, targets, training, work_mib, workBytes }: TargetPlan,
): number {
  if (workBytes !== undefined) return workBytes;
  const each = targets.map((target) => estimateEdit(dims, target, { layer, steps }).workBytes)
    .toSorted((a, b) => b - a);
  const all = each.slice(0, training?.together).reduce((sum, bytes) => sum + bytes, 0);
  if (training) return all;
  return Math.max(each[0], Math.min(all, (work_mib ?? 0) * 2 ** 20));
}
