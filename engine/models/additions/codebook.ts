/**
 * A codebook at a linear map (GRACE; Hartvigsen et al. 2023, "Aging with GRACE"): a prompt whose last token
 * brings the map an input within ε of a key gets the key's value in place of the map's output. What is no key's
 * keeps every bit.
 *
 * | tensor | shape | |
 * | --- | --- | --- |
 * | `keys` | [n, in] | inputs of the map |
 * | `values` | [n, out] | what it then says |
 * | `radius` | [n] | ε of each key |
 *
 * The setting `replace` says at which tokens: `all`, `prompt` (those before the last one), `last`, or
 * `prompt+last`.
 */
import { chooseRows, distances, nearest } from "../../ops/lookup.ts";
import { createTensor, type Tensor } from "../../tensor/tensor.ts";
import { type Ctx, temp } from "../../ops/context.ts";
import { GpuError } from "../../gpu/errors.ts";
import { type Model, weight } from "../model.ts";
import type { Applied, Part } from "../parts.ts";
import type { KvCache, PromptRows } from "../rows.ts";
import { type Addition, uploadEntries } from "./addition.ts";

/** Tokens that get the value, as the bits of {@link PromptRows.place}. */
export const REPLACE = { all: 7, prompt: 1, last: 2, "prompt+last": 3 } as const;

export type Replace = keyof typeof REPLACE;

/** The codebook on the device. */
export function codebook(model: Model, addition: Addition): Part {
  const { role, settings } = addition;
  const w = weight(model, role);
  const { tensors, dispose } = uploadEntries(model, addition, { keys: [w.in], values: [w.out], radius: [] });
  const { keys, values, radius } = tensors;
  const part = codebookPart(
    role,
    values,
    settings.replace as Replace,
    (ctx, { x, block: { rows, cache } }) =>
      decideOnce(
        ctx,
        tensors,
        rows.prompts(),
        cache,
        (into) => nearest(ctx, distances(ctx, x, rows.prompts().last, keys), radius, into),
      ),
  );
  return { ...part, tensors: new Map(Object.entries(tensors)), [Symbol.dispose]: dispose };
}

/**
 * A part that puts values [n, out] in place of a map's output.
 * @param choose says for each sequence which value it gets, u32 [sequences]
 */
export function codebookPart(
  role: string,
  values: Tensor,
  replace: Replace,
  choose: (ctx: Ctx, applied: Applied) => Tensor,
): Part {
  const beside = (ctx: Ctx, applied: Applied) => {
    const { sequence, place } = applied.block.rows.prompts();
    const choice = choose(ctx, applied);
    const how = { choice, sequence, place, places: REPLACE[replace] };
    return chooseRows(ctx, applied.y, values, how, applied.residual);
  };
  return {
    at: new Map([[role, beside]]),
    whole: [Number(role.split(".")[1])],
    tensors: new Map(),
    [Symbol.dispose]() {},
  };
}

/**
 * What a part decides by the prompts, u32 [sequences]: recorded where the prompts are, and kept with the cache
 * for the rows that follow them.
 * @throws {GpuError} when the prompts were there before, without the part
 */
export function decideOnce(
  ctx: Ctx,
  part: object,
  prompts: PromptRows,
  cache: KvCache | undefined,
  decide: (into: Tensor) => void,
): Tensor {
  const kept = cache?.notes.get(part);
  if (prompts.live === "before") {
    if (kept) return kept;
    throw new GpuError("The keys of these prompts were cached before the edit lay on the model");
  }
  const shape = [prompts.count];
  const into = cache
    ? kept ?? createTensor(ctx.gpu, "choices", shape, { dtype: "u32", owner: "cache" })
    : temp(ctx, "choices", shape, "u32");
  cache?.notes.set(part, into);
  decide(into);
  return into;
}
