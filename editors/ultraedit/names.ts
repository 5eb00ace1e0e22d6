/** Linear maps by the names that the authors' files use. */
import { InputError } from "../../engine/io/errors.ts";
import type { Model } from "../../engine/models/model.ts";

/** Modules of the field's checkpoints that are one of our roles. */
const MODULES: Record<string, string> = {
  "mlp.gate_proj": "mlp.gate",
  "mlp.up_proj": "mlp.up",
  "mlp.c_fc": "mlp.up",
  "mlp.fc_in": "mlp.up",
  "mlp.dense_h_to_4h": "mlp.up",
  "mlp.down_proj": "mlp.down",
  "mlp.c_proj": "mlp.down",
  "mlp.fc_out": "mlp.down",
  "mlp.dense_4h_to_h": "mlp.down",
};

/**
 * The role of a map, given as one (`layer.29.mlp.down`) or as a module (`model.layers.29.mlp.down_proj`).
 * @throws {InputError} for a layer or map that the model does not have
 */
export function mapNamed({ name, weights }: Pick<Model, "name" | "weights">, wanted: string): string {
  const found = /\.(\d+)\.(\w+\.\w+)(?:\.weight)?$/.exec(wanted);
  const role = found && `layer.${found[1]}.${MODULES[found[2]] ?? found[2]}`;
  if (role && weights.has(role)) return role;
  const roles = [...weights.keys()].filter((role) => role.startsWith("layer.0."));
  throw new InputError(`${name} has no map "${wanted}" to edit`, { hint: `A layer has ${roles.join(", ")}` });
}
