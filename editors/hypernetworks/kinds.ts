/** The trained editors by name: how each makes its network, and how each learns. */
import type { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";
import type { Model } from "../../engine/models/model.ts";
import { parseHparams } from "../hparams.ts";
import {
  type CommonTraining,
  type EfkTraining,
  efkTrainSchema,
  type KeTraining,
  keTrainSchema,
  type MalmenTraining,
  malmenTrainSchema,
  type MendTraining,
  mendTrainSchema,
  type WeightedTraining,
} from "./hparams.ts";
import { ConstrainedLearner } from "./ke_learner.ts";
import { keNetwork, type KeShape } from "./ke_network.ts";
import { Learner, type Trainee } from "./learner.ts";
import { malmenNetwork } from "./malmen_network.ts";
import { blockMaps, lastLayers, mlpMaps, projections } from "./maps.ts";
import { mendNetwork } from "./mend_network.ts";
import type { Hypernetwork, Numbers } from "./network.ts";

/** A kind of trained editor. Its hyper-parameters come from its own `parse` only. */
export interface EditorKind<H extends CommonTraining = CommonTraining> {
  name: string;
  schema: z.ZodObject;
  /**
   * Whether each edit is read for itself, as a text with the answer before it; an edited model of several then holds
   * the sum of their changes.
   */
  alone?: boolean;
  /** The maps that it edits. */
  roles(model: Model, hparams: Pick<H, "layers">): string[];
  /** What its network is made by; goes into the file. */
  shape(hparams: H): Record<string, unknown>;
  /** The network of a shape, new or with given numbers. */
  network(
    model: Model,
    roles: readonly string[],
    shape: Record<string, unknown>,
    numbers?: Numbers,
    seed?: number,
  ): Hypernetwork;
  learner(model: Model, network: Hypernetwork, hparams: H): Trainee;
}

/** MEND's loss and Adam. */
const learner: EditorKind<WeightedTraining>["learner"] = (
  model,
  network,
  { cedit, cloc, lr, lr_decay, grad_clip },
) =>
  new Learner(model, network, {
    c_edit: cedit,
    c_loc: cloc,
    lr,
    decay: lr_decay || undefined,
    clip: grad_clip,
  });

const mend: EditorKind<MendTraining> = {
  name: "mend",
  schema: mendTrainSchema,
  roles: (model, { layers }) => mlpMaps(model, layers ?? lastLayers(model, 3)),
  shape: ({ rank, edit_lr, lr, lr_lr }) => ({ rank, editLr: edit_lr, editLrRate: lr_lr / lr }),
  network: (model, roles, shape, numbers, seed) =>
    mendNetwork(
      model,
      { ...shape as { rank: number; editLr: number; editLrRate: number }, roles, seed },
      numbers,
    ),
  learner,
};

const malmen: EditorKind<MalmenTraining> = {
  name: "malmen",
  schema: malmenTrainSchema,
  roles: (model, { layers }) => projections(model, layers ?? lastLayers(model, 6)),
  shape: ({ rank, edit_lr, lr, lr_lr }) => ({ rank, editLr: edit_lr, editLrRate: lr_lr / lr }),
  network: (model, roles, shape, numbers, seed) =>
    malmenNetwork(
      model,
      { ...shape as { rank: number; editLr: number; editLrRate: number }, roles, seed },
      numbers,
    ),
  learner,
};

const keEfk: EditorKind<EfkTraining> = {
  name: "ke-efk",
  schema: efkTrainSchema,
  alone: true,
  roles: mend.roles,
  shape: ({ lstm, condition, hidden, max_scale }) => ({ lstm, condition, hidden, maxScale: max_scale }),
  network: (model, roles, shape, numbers, seed) =>
    keNetwork(model, { ...shape as Omit<KeShape, "roles">, roles, seed }, numbers),
  learner,
};

const ke: EditorKind<KeTraining> = {
  name: "ke",
  schema: keTrainSchema,
  alone: true,
  roles: (model, { layers }) => blockMaps(model, layers ?? lastLayers(model, Infinity)),
  shape: (hparams) => ({ ...keEfk.shape(hparams as KeTraining & EfkTraining), biasRate: 2 }),
  network: keEfk.network,
  learner: (model, network, hparams) =>
    new ConstrainedLearner(model, network, {
      ...{ lr: hparams.lr, lrAlpha: hparams.lr_alpha, warmup: hparams.warmup_updates },
      ...{ steps: hparams.max_steps, smoothing: hparams.eps },
      margin: { start: hparams.margin_kl_max, floor: hparams.margin_kl_min },
    }),
};

const KINDS: readonly EditorKind[] = [mend, malmen, keEfk, ke] as readonly unknown[] as EditorKind[];

/** The names of all. */
export const EDITOR_KINDS: readonly string[] = KINDS.map(({ name }) => name);

/** @throws {InputError} for a method that is not trained */
export function editorKind(name: string): EditorKind {
  const found = KINDS.find((kind) => kind.name === name.toLowerCase());
  if (found) return found;
  throw new InputError(`There is no training for "${name}"`, {
    hint: `emend trains ${EDITOR_KINDS.join(", ")}`,
  });
}

/** Completes and checks hyper-parameters of a training. @throws {InputError} naming the key */
export function parseTraining(
  kind: EditorKind,
  values: Record<string, unknown>,
  source: string,
): { hparams: CommonTraining; unknown: string[] } {
  return parseHparams(kind.schema, values, source) as { hparams: CommonTraining; unknown: string[] };
}
