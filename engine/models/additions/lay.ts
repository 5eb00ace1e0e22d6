/** Laying additions on a model and taking them off again, in any order. */
import { GpuError } from "../../gpu/errors.ts";
import type { Model } from "../model.ts";
import type { Part } from "../parts.ts";
import { type Addition, groupOf, joinAdditions } from "./addition.ts";
import { adapters } from "./adapters.ts";
import { codebook } from "./codebook.ts";
import { sideMemory } from "./side_memory.ts";
import { slots } from "./slots.ts";

const BUILDERS: Record<Addition["kind"], (model: Model, addition: Addition) => Part> = {
  codebook,
  slots,
  "side-memory": sideMemory,
  adapters,
};

/** Additions of one group, as they lie on a model. */
interface Group {
  /** In the order in which they came. */
  laid: Addition[];
  joined: Addition;
  part: Part;
}

const GROUPS = new WeakMap<Model["parts"], Map<string, Group>>();

/**
 * Puts additions on a model; dispose the result to take exactly these off again. Entries of earlier ones that
 * they took the place of are then back.
 * @throws {GpuError} when one does not fit the model, which then has none of them
 */
export function layAdditions(model: Model, additions: readonly Addition[]): Disposable {
  using laid = new DisposableStack();
  for (const addition of additions) laid.use(layOne(model, addition));
  return laid.move();
}

/** What lies on a model, each group as one. */
export function additionsOn(model: Model): Addition[] {
  return [...GROUPS.get(model.parts)?.values() ?? []].map(({ joined }) => joined);
}

/** The model's parts without those of an addition's group: what an editor that replaces them trains beside. */
export function partsWithout(model: Model, addition: Addition): Part[] {
  const own = GROUPS.get(model.parts)?.get(groupOf(addition))?.part;
  return model.parts.filter((part) => part !== own);
}

function layOne(model: Model, addition: Addition): Disposable {
  const groups = GROUPS.get(model.parts) ?? new Map<string, Group>();
  GROUPS.set(model.parts, groups);
  const key = groupOf(addition);
  if (addition.entries.length === 0) throw new GpuError(`The ${addition.kind} at ${addition.role} is empty`);
  install(model, groups, key, [...groups.get(key)?.laid ?? [], addition]);
  let on = true;
  return {
    [Symbol.dispose]() {
      if (!on) return;
      on = false;
      const { laid } = groups.get(key)!;
      // The last of equal ones: the same addition may lie on the model twice.
      install(model, groups, key, laid.toSpliced(laid.lastIndexOf(addition), 1));
    },
  };
}

/** Puts a group's part in its place; the new one is made before the old one goes. */
function install(model: Model, groups: Map<string, Group>, key: string, laid: Addition[]): void {
  const { parts } = model;
  const old = groups.get(key);
  const joined = laid.length ? joinAdditions(laid) : undefined;
  const part = joined && BUILDERS[joined.kind](model, joined);
  const at = old ? parts.indexOf(old.part) : parts.length;
  parts.splice(at, old ? 1 : 0, ...part ? [part] : []);
  old?.part[Symbol.dispose]();
  if (part) groups.set(key, { laid, joined: joined!, part });
  else groups.delete(key);
}
