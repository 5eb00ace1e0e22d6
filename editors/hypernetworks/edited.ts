/** A model edited by factors that are still being made, group by group of rows; gradients flow to the factors. */
import type { Model } from "../../engine/models/model.ts";
import type { Applied } from "../../engine/models/parts.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { addFactored, type RowFactors } from "../../engine/ops/factored.ts";
import { groupsOf, partOf, withPart } from "./gradients.ts";
import type { Packed } from "./texts.ts";

/** The model in which each row of `texts` sees the factors of its own group. */
export function withFactors(model: Model, factors: ReadonlyMap<string, RowFactors>, texts: Packed): Model {
  const change = (own: RowFactors) => (ctx: Ctx, { x, y }: Applied) =>
    addFactored(ctx, x, y, own, groupsOf(texts, x));
  return withPart(model, partOf(new Map([...factors].map(([role, own]) => [role, change(own)]))));
}
