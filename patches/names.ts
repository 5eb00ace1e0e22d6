/** What a checkpoint's tensors are called in patches: names of transformers, roles, orientation. */
import type { Checkpoint } from "../engine/io/checkpoint.ts";
import { parseConfig } from "../engine/io/config.ts";
import { InputError } from "../engine/io/errors.ts";
import { checkpointLayout, type Entry, type LinearEntry } from "../engine/models/layout.ts";
import type { TensorDelta } from "./patch.ts";

/** A tensor as patches name it. */
export type TensorName = Pick<TensorDelta, "tensor" | "role" | "layout">;

/**
 * Every weight of a checkpoint by its stored name. What emend does not know, or does not run, has its own name
 * for a role.
 */
export function tensorNames({ config, weights }: Checkpoint): Map<string, TensorName> {
  const known = new Map<string, TensorName>();
  for (const entry of entriesOf(config)) {
    const { role, name: tensor } = entry;
    const layout = entry.kind === "linear" ? { layout: entry.layout } : {};
    known.set(tensor, { tensor, role, ...layout });
    if (entry.kind === "linear" && entry.bias) {
      known.set(entry.bias, { tensor: entry.bias, role: `${role}.bias` });
    }
  }
  return new Map([...weights.keys()].map((name) => {
    // GPT-2 checkpoints come with and without the prefix.
    const found = known.get(name) ?? known.get(`transformer.${name}`);
    return [name, found ?? { tensor: name, role: name }];
  }));
}

/** The linear maps of a model, a head that is tied to the embedding included. */
export function linearMaps({ config }: Checkpoint): LinearEntry[] {
  const parsed = parseConfig(config);
  const maps = checkpointLayout(parsed).filter((entry) => entry.kind === "linear");
  if (!parsed.tied) return maps;
  const { vocab, width } = parsed;
  const head = { role: "head", name: "lm_head.weight", out: vocab, in: width };
  return [...maps, { kind: "linear", ...head, layout: "out_in" }];
}

function entriesOf(config: Record<string, unknown>): Entry[] {
  try {
    return checkpointLayout(parseConfig(config));
  } catch (error) {
    if (error instanceof InputError) return [];
    throw error;
  }
}
