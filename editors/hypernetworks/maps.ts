/**
 * Which linear maps a hyper-network edits, and which of them share a network: those of one shape (Mitchell et al.
 * 2022, section 3.2; memory-and-meta guide sections 2.1 and 2.2).
 */
import { InputError } from "../../engine/io/errors.ts";
import { type Model, weight } from "../../engine/models/model.ts";

/** Maps of one shape, in the model's order; a map's place in the list is its mode in the shared network. */
export interface ShapeGroup {
  in: number;
  out: number;
  roles: string[];
}

/** The MLPs' maps of layers, lower layers first, in the order in which a block has them. */
export function mlpMaps(model: Model, layers: readonly number[]): string[] {
  return mapsOf(model, layers, ["gate", "up", "down"].map((name) => `mlp.${name}`));
}

/** All matrices of layers, attention's and the MLPs': what KE edits (guide section 3.1), the same order. */
export function blockMaps(model: Model, layers: readonly number[]): string[] {
  const attention = ["qkv", "q", "k", "v", "o"].map((name) => `attn.${name}`);
  return mapsOf(model, layers, [...attention, "mlp.gate", "mlp.up", "mlp.down"]);
}

function mapsOf(model: Model, layers: readonly number[], names: readonly string[]): string[] {
  const { layers: depth } = model.dims;
  const beyond = layers.find((layer) => layer >= depth);
  if (beyond !== undefined) {
    throw new InputError(`There is no layer ${beyond}: ${model.name} has layers 0 to ${depth - 1}`);
  }
  return [...layers].sort((a, b) => a - b).flatMap((layer) =>
    names.map((name) => `layer.${layer}.${name}`).filter((role) => model.weights.has(role))
  );
}

/** The MLPs' projections out of layers. */
export function projections(model: Model, layers: readonly number[]): string[] {
  return mlpMaps(model, layers).filter((role) => role.endsWith(".mlp.down"));
}

/** The last layers of a model, as the authors choose them. */
export function lastLayers({ dims: { layers } }: { dims: { layers: number } }, count: number): number[] {
  return Array.from({ length: Math.min(count, layers) }, (_, i) => layers - Math.min(count, layers) + i);
}

/** Groups of one shape, in the order of their first maps. */
export function shapeGroups(model: Pick<Model, "name" | "weights">, roles: readonly string[]): ShapeGroup[] {
  const groups = new Map<string, ShapeGroup>();
  for (const role of roles) {
    const { in: inner, out } = weight(model, role);
    const key = `${inner}x${out}`;
    const group = groups.get(key) ?? { in: inner, out, roles: [] };
    groups.set(key, group);
    group.roles.push(role);
  }
  return [...groups.values()];
}

/** The layer of a role. */
export function layerOf(role: string): number {
  return Number(role.split(".")[1]);
}
