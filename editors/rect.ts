/**
 * RECT (Gu et al. 2024, arXiv 2401.04700; guide section 9): of an update only the entries that change their weight most
 * are kept,
 *
 *   ΔW_ij stays where |ΔW_ij / (W_ij + 1e-8)| is among the largest, and is 0 elsewhere,
 *
 * as AlphaEdit's code has it, one matrix at a time. What is left has no low rank.
 */
import type { Model } from "../engine/models/model.ts";
import type { WeightDelta } from "./edit.ts";
import { denseChange, denseOf, hostWeight } from "./host_weight.ts";

/** @param keep the share of entries that stay */
export async function rect(model: Model, delta: WeightDelta, keep = 0.4): Promise<WeightDelta> {
  const change = denseOf(delta);
  const W = await hostWeight(model, delta.role, true);
  const size = change.map((c, i) => Math.abs(c / (W[i] + 1e-8)));
  const least = size.toSorted()[Math.max(0, Math.trunc((1 - keep) * size.length) - 1)];
  const kept = change.map((c, i) => size[i] >= least ? c : 0);
  return denseChange(model, delta.role, kept);
}
