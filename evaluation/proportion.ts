/** Says when edits change a weight out of all proportion. */
import type { WeightGrowth } from "./norms.ts";

/** ‖ΔW‖ / ‖W‖ above which an edit is no longer an edit. */
const MUCH = 10;

/**
 * A sentence for each weight that changes far more than it weighs, with the remedy where the method has one.
 * @param changes what the edits did, one a weight
 */
export function outOfProportion(
  changes: readonly Pick<WeightGrowth, "role" | "relative">[],
  { mom2_jitter: jitter }: Record<string, unknown>,
): string[] {
  const remedy = typeof jitter === "number"
    ? `: either it has no room for so many edits, or some of its units hardly ever fire and blow C⁻¹ up, which a ` +
      `mom2_jitter above ${jitter} holds down`
    : "";
  return changes.filter(({ relative }) => relative > MUCH).map(({ role, relative }) =>
    `${role} changes by ${relative.toFixed(0)} times its own norm${remedy}`
  );
}
