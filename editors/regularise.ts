/** RECT or PRUNE on top of an edit, where the hyper-parameters ask for one (guide, section 9). */
import type { Model } from "../engine/models/model.ts";
import type { WeightDelta } from "./edit.ts";
import { prune } from "./prune.ts";
import { rect } from "./rect.ts";

/** The delta, held down. What lies on the model counts as the weight, so the delta itself must not. */
export async function regularised(
  model: Model,
  delta: WeightDelta,
  { regulariser, rect_keep }: { regulariser?: "rect" | "prune"; rect_keep?: number },
): Promise<WeightDelta> {
  if (regulariser === "rect") return await rect(model, delta, rect_keep);
  if (regulariser === "prune") return await prune(model, delta);
  return delta;
}
