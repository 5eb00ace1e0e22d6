/**
 * Sites: every place that a method reads or writes has a name, the same in every architecture.
 *
 * | site | what | width |
 * | --- | --- | --- |
 * | `embed` | the residual stream entering layer 0 | D |
 * | `layer.N.in` | the residual stream entering block N | D |
 * | `layer.N.attn.out` | output of the attention projection | D |
 * | `layer.N.mlp.key` | input of the MLP's output projection | F |
 * | `layer.N.mlp.out` | output of the MLP's output projection | D |
 * | `layer.N.out` | the residual stream leaving block N | D |
 * | `final` | after the final norm | D |
 */
import type { Ctx } from "../ops/context.ts";
import type { Tensor } from "../tensor/tensor.ts";

export type Site =
  | "embed"
  | "final"
  | `layer.${number}.in`
  | `layer.${number}.attn.out`
  | `layer.${number}.mlp.key`
  | `layer.${number}.mlp.out`
  | `layer.${number}.out`;

/** Called while recording, with the tensor at the site; what it returns flows on. */
export type Hook = (ctx: Ctx, value: Tensor) => Tensor;

/** Hooks by site. Reading is recording a copy and returning the value unchanged. */
export type Hooks = ReadonlyMap<Site, Hook>;

/** Passes a value through the hook of its site, if there is one. */
export function atSite(ctx: Ctx, hooks: Hooks | undefined, site: Site, value: Tensor): Tensor {
  return hooks?.get(site)?.(ctx, value) ?? value;
}
