/**
 * Additions: what an editor puts beside a model's weights, as numbers. An addition is a list of entries (keys of
 * a codebook, slots of a feed-forward layer, side matrices, adapters) at one linear map; every tensor has one row
 * an entry. Additions of one kind, place and setting lie on a model as one: their entries stand side by side, and
 * an entry takes the place of an earlier one that has its name, and of those that it says it replaces. So the edits of a sequence hold only what each
 * of them changed.
 */
import { GpuError } from "../../gpu/errors.ts";
import { fromHost } from "../../tensor/transfer.ts";
import { freeTensor, sizeOf, type Tensor } from "../../tensor/tensor.ts";
import type { Model } from "../model.ts";

/** What there is: see the file of each. */
export const ADDITION_KINDS = ["codebook", "slots", "side-memory", "adapters"] as const;

/** What can be said of an entry or an addition beside its numbers. */
export type Setting = string | number | boolean | null | readonly Setting[] | {
  readonly [key: string]: Setting;
};

/** What is known of one entry. */
export type EntryInfo = {
  /** Its name; a later entry of that name takes its place. Entries without one stay side by side. */
  readonly id?: string;
  /** Names of earlier entries that are gone when this one lies on the model. */
  readonly replaces?: readonly string[];
  readonly [key: string]: Setting | undefined;
};

/** Numbers, [entries, …] row-major. */
export interface EntryNumbers {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** Entries of one kind at one map. */
export interface Addition {
  readonly kind: (typeof ADDITION_KINDS)[number];
  /** The role of the map beside which it stands: `layer.3.mlp.down`. */
  readonly role: string;
  /** How it works, the same for all entries. */
  readonly settings: { readonly [key: string]: Setting };
  readonly entries: readonly EntryInfo[];
  readonly tensors: ReadonlyMap<string, EntryNumbers>;
}

/** Additions with the same one lie on a model together. */
export function groupOf({ kind, role, settings }: Addition): string {
  return JSON.stringify([kind, role, Object.entries(settings).toSorted(([a], [b]) => a < b ? -1 : 1)]);
}

/**
 * Additions of one group as one.
 * @throws {GpuError} when their tensors differ in names or sizes
 */
export function joinAdditions(all: readonly Addition[]): Addition {
  const [first] = all;
  if (all.length === 1) return first;
  let places: { from: Addition; row: number; info: EntryInfo }[] = [];
  for (const from of all) {
    from.entries.forEach((info, row) => {
      const { id, replaces = [] } = info;
      if (replaces.length) places = places.filter((place) => !replaces.includes(place.info.id ?? ""));
      const at = id === undefined ? -1 : places.findIndex((place) => place.info.id === id);
      places.splice(at < 0 ? places.length : at, at < 0 ? 0 : 1, { from, row, info });
    });
  }
  const tensors = new Map<string, EntryNumbers>();
  for (const [name, { shape: [, ...shape] }] of first.tensors) {
    const size = sizeOf(shape);
    const values = new Float32Array(places.length * size);
    places.forEach(({ from, row }, i) => {
      const part = from.tensors.get(name);
      if (part?.shape.slice(1).join() !== shape.join()) {
        throw new GpuError(`Cannot join additions at ${first.role}: their ${name} differ in size`);
      }
      values.set(part.values.subarray(row * size, (row + 1) * size), i * size);
    });
    tensors.set(name, { shape: [places.length, ...shape], values });
  }
  return { ...first, entries: places.map(({ info }) => info), tensors };
}

/**
 * Puts an addition's tensors on the device, under the owner "overlays".
 * @param shapes what each must be, entries left out
 * @throws {GpuError} when one is missing or has another shape
 */
export function uploadEntries<N extends string>(
  { gpu, name: model }: Model,
  addition: Addition,
  shapes: Record<N, number[]>,
): { tensors: Record<N, Tensor>; dispose: () => void } {
  const { kind, role, entries } = addition;
  const made: [string, Tensor][] = [];
  for (const [name, shape] of Object.entries<number[]>(shapes)) {
    const numbers = addition.tensors.get(name);
    const wanted = [entries.length, ...shape];
    if (numbers?.shape.join() !== wanted.join()) {
      made.forEach(([, t]) => freeTensor(gpu, t));
      throw new GpuError(
        `The ${kind} at ${role} has ${name} [${numbers?.shape.join(", ") ?? ""}]; ` +
          `${model} takes [${wanted.join(", ")}]`,
      );
    }
    made.push([
      name,
      fromHost(gpu, `${kind} ${name} of ${role}`, wanted, numbers.values, { owner: "overlays" }),
    ]);
  }
  const dispose = () => made.splice(0).forEach(([, t]) => freeTensor(gpu, t));
  return { tensors: Object.fromEntries(made) as Record<N, Tensor>, dispose };
}
