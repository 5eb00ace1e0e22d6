/**
 * MELO, Model Editing with neuron-indexed dynamic LoRA (Yu et al. 2024; guide section 12). The weights stay. Each
 * batch of edits trains a low-rank block on some maps, and each edit's prompt, as the output of an earlier map at
 * its last token, becomes a member of a cluster that stands for the block. With q the new prompt's place and d its
 * distance to the nearest cluster's centre, of radius r:
 *
 *   d > r + r_init          a new cluster (q, r_init)
 *   else, same label        q joins: the centre becomes the mean, r the farthest member's distance or r_init
 *   else                    a new cluster, and radii d/2, the old one a hair less, the new one a hair more; members
 *                           outside the old one are forgotten
 *
 * Distances of a batch are to the clusters as they were before it. Labels are compared as sequences of ids; the
 * authors compare their sums, which collide.
 */
import { z } from "npm:zod@4.6.7";
import { createHash } from "node:crypto";
import type { Addition, EntryInfo } from "../engine/models/additions/addition.ts";
import { additionsOn, partsWithout } from "../engine/models/additions/lay.ts";
import { InputError } from "../engine/io/errors.ts";
import { type Model, weight } from "../engine/models/model.ts";
import { seededRandom } from "../engine/models/sample.ts";
import { mapRows, withParts } from "./beside/map_rows.ts";
import { besideMethod } from "./beside/method.ts";
import { besideRecipe } from "./beside/recipes.ts";
import type { Edit } from "./edit.ts";
import { type Factors, lora } from "./finetune/lora.ts";
import { type Example, train } from "./finetune/train.ts";
import { distance } from "./grace.ts";

/** Hyper-parameters, under the authors' names where they have one. */
export const meloSchema = z.object({
  /** The adapted layers. */
  layers: z.array(z.number().int().min(1)).min(1),
  /** Whose output tells which block; before the adapted ones. */
  grace_layer: z.number().int().min(0),
  /** Which map of the MLPs, both to adapt and to look up by: the authors' GPT-2 XL has the one in. */
  site: z.enum(["up", "down"]).default("up"),
  /** r_init, a distance between outputs of the map: different for every model. */
  init_radius: z.number().positive(),
  num_rank_per_block: z.number().int().min(1).default(2),
  /** The product of a block's factors is multiplied by this: the authors' number of blocks, 350 for GPT-2 XL. */
  num_block: z.number().int().min(1).default(100),
  num_iter: z.number().int().min(1).max(10000).default(50),
  /** Adam's. The authors halve it every 20 steps; here it stays. */
  edit_lr: z.number().positive().default(1e-3),
});

export type MeloHparams = z.infer<typeof meloSchema>;

/** A block's factors of each map: A [rank, in] and B [rank, out], the scale in B. */
export type Block = readonly { A: Float32Array; B: Float32Array }[];

/** One member of a cluster. */
export interface Member {
  id: string;
  key: Float32Array;
  block: Block;
}

/** One cluster on the host. */
export interface Cluster {
  /** Of its first member. */
  name: string;
  center: Float32Array;
  radius: number;
  /** Ids of the target. */
  label: readonly number[];
  members: Member[];
}

/**
 * The clusters' rule for one edit of a batch; `clusters` is changed in place.
 * @param near the cluster that was nearest before the batch, and its distance
 * @param nothing the block of a cluster whose members are all forgotten
 * @returns the clusters that are new or not as they were, and the ids of forgotten members
 */
export function meloRule(
  clusters: Cluster[],
  near: { cluster: Cluster; d: number } | undefined,
  { member, label }: { member: Member; label: readonly number[] },
  { init_radius }: Pick<MeloHparams, "init_radius">,
  nothing: Block,
): { changed: Cluster[]; forgotten: string[] } {
  const fresh = (radius: number) => {
    const made = { name: member.id, center: member.key, radius, label, members: [member] };
    clusters.push(made);
    return made;
  };
  if (!near || near.d > near.cluster.radius + init_radius) {
    return { changed: [fresh(init_radius)], forgotten: [] };
  }
  const { cluster, d } = near;
  if (cluster.label.join() === label.join()) {
    cluster.members.push(member);
    const keys = cluster.members.map(({ key }) => key);
    cluster.center = keys[0].map((_, i) => keys.reduce((sum, key) => sum + key[i], 0) / keys.length);
    cluster.radius = Math.max(init_radius, ...keys.map((key) => distance(key, cluster.center)));
    return { changed: [cluster], forgotten: [] };
  }
  cluster.radius = d / 2 - 1e-5;
  const kept = cluster.members.filter(({ key }) => distance(key, cluster.center) <= cluster.radius);
  const forgotten = cluster.members.filter((one) => !kept.includes(one)).map(({ id }) => id);
  // What it stood for is forgotten; its place is kept, and answered by the model as it is.
  const empty = { id: `${cluster.name} empty`, key: cluster.center, block: nothing };
  cluster.members = kept.length ? kept : [empty];
  return { changed: [fresh(d / 2 + 1e-5), cluster], forgotten };
}

export const melo = besideMethod({
  name: "melo",
  summary: "MELO (Yu et al. 2024): low-rank blocks, chosen by a look-up of the prompt's place",
  schema: meloSchema,
  recipe: (model) => besideRecipe(model.config, "melo"),
  measured: "init_radius",
  steps: ({ num_iter }) => num_iter,
  edit: (model, _requests, examples, options) => editMelo(model, examples, options),
});

/** Edits examples as one batch, with one block. The model is left as it is. */
export async function editMelo(
  model: Model,
  examples: readonly Example[],
  { hparams, seed = 0, start }: {
    hparams: MeloHparams;
    seed?: number;
    /** Factors to begin with, instead of random ones. */
    start?: readonly Factors[];
  },
): Promise<Pick<Edit, "deltas" | "additions" | "outcomes">> {
  const { layers, grace_layer, site, num_rank_per_block: rank, num_block, num_iter, edit_lr: lr } = hparams;
  if (grace_layer >= Math.min(...layers)) {
    throw new InputError(`grace_layer must come before the adapted layers, got ${grace_layer} and ${layers}`);
  }
  const roles = layers.map((layer) => `layer.${layer}.mlp.${site}`);
  const maps = roles.map((role) => weight(model, role));
  const empty: Addition = {
    kind: "adapters",
    role: `layer.${grace_layer}.mlp.${site}`,
    settings: { roles, rank },
    entries: [],
    tensors: new Map(),
  };
  const bare = withParts(model, partsWithout(model, empty));
  const clusters = clustersOn(model, empty);
  const texts = examples.map(({ prompt }) => ({ ids: prompt, positions: [prompt.length - 1] }));
  const { outputs } = await mapRows(bare, empty.role, texts);

  const random = seededRandom(seed);
  // As the authors' code draws them, by the rank of all blocks together.
  const within = 1 / Math.sqrt(rank * num_block);
  const starts = start ?? maps.map(({ role, out, in: inner }): Factors => ({
    role,
    left: new Float32Array(out * rank),
    right: Float32Array.from({ length: inner * rank }, () => (2 * random() - 1) * within),
  }));
  using adaptation = lora(bare, starts, { rank, lora_alpha: rank * num_block });
  const training = await train(bare, examples, adaptation, {
    ...{ objective_optimization: "target_new", num_steps: num_iter, lr, weight_decay: 0, threshold: 0 },
    batch_size: examples.length,
  });
  const trained = await adaptation.deltas();
  const block = trained.map(({ left, right }) => ({
    A: transposed(right!, rank),
    B: transposed(left!, rank),
  }));
  const nothing = block.map(({ A, B }) => ({
    A: new Float32Array(A.length),
    B: new Float32Array(B.length),
  }));

  const known = new Set(clusters.flatMap(({ members }) => members.map(({ id }) => id)));
  const nearest = outputs.map((key) => nearestOf(clusters, key));
  const changed = new Set<Cluster>(), forgotten = new Set<string>();
  examples.forEach(({ target: label }, i) => {
    const hash = createHash("sha256").update(new Uint8Array(outputs[i].slice().buffer)).digest("hex");
    let id = hash.slice(0, 16);
    for (let again = 1; known.has(id); again++) id = `${hash.slice(0, 16)}.${again}`;
    known.add(id);
    const member = { id, key: outputs[i], block };
    const made = meloRule(clusters, nearest[i], { member, label }, hparams, nothing);
    made.changed.forEach((cluster) => changed.add(cluster));
    made.forgotten.forEach((id) => forgotten.add(id));
  });
  const { losses } = training;
  return {
    deltas: [],
    additions: [additionOf(empty, [...changed], [...forgotten])],
    outcomes: examples.map((_, i) => ({
      steps: training.steps,
      losses: losses.map((row) => ({ nll: row[i], kl: 0, wd: 0 })),
      warnings: losses.at(-1)![i] > losses[0][i] / 2
        ? [`The loss of edit ${i + 1} hardly fell; try another edit_lr than ${lr}`]
        : [],
    })),
  };
}

function nearestOf(
  clusters: readonly Cluster[],
  key: Float32Array,
): { cluster: Cluster; d: number } | undefined {
  const all = clusters.map((cluster) => ({ cluster, d: distance(cluster.center, key) }));
  return all.toSorted((a, b) => a.d - b.d)[0];
}

/** [n, rank] → [rank, n] */
function transposed(x: Float32Array, rank: number): Float32Array {
  const n = x.length / rank;
  return x.map((_, i) => x[(i % n) * rank + Math.floor(i / n)]);
}

/** The clusters that lie on the model in this place. */
function clustersOn(model: Model, { role, settings }: Addition): Cluster[] {
  const found = additionsOn(model).find((a) =>
    a.kind === "adapters" && a.role === role && JSON.stringify(a.settings) === JSON.stringify(settings)
  );
  const clusters = new Map<string, Cluster>();
  found?.entries.forEach(({ id, cluster, label }, i) => {
    const rows = (name: string) => {
      const { shape: [n], values } = found.tensors.get(name)!;
      return values.slice(i * values.length / n, (i + 1) * values.length / n);
    };
    const name = cluster as string;
    const made = clusters.get(name) ??
      { name, center: rows("centers"), radius: rows("radius")[0], label: label as number[], members: [] };
    clusters.set(name, made);
    const block = (settings.roles as string[]).map((role) => ({
      A: rows(`A.${role}`),
      B: rows(`B.${role}`),
    }));
    made.members.push({ id: id!, key: rows("keys"), block });
  });
  return [...clusters.values()];
}

/** All members of clusters as entries; the first one says which members are gone. */
function additionOf(
  empty: Addition,
  clusters: readonly Cluster[],
  forgotten: readonly string[],
): Addition {
  const all = clusters.flatMap((cluster) => cluster.members.map((member) => ({ cluster, member })));
  const stack = (rows: readonly Float32Array[], shape: readonly number[]) => {
    const values = new Float32Array(rows.length * rows[0].length);
    rows.forEach((row, i) => values.set(row, i * row.length));
    return { shape: [rows.length, ...shape], values };
  };
  const { roles, rank } = empty.settings as { roles: string[]; rank: number };
  const factors = (name: "A" | "B") =>
    roles.map((role, r) => {
      const rows = all.map(({ member }) => member.block[r][name]);
      return [`${name}.${role}`, stack(rows, [rank, rows[0].length / rank])] as const;
    });
  const wide = [all[0].member.key.length];
  return {
    ...empty,
    entries: all.map(({ cluster: { name, label }, member: { id } }, i): EntryInfo => ({
      id,
      cluster: name,
      label,
      ...i === 0 && forgotten.length ? { replaces: forgotten } : {},
    })),
    tensors: new Map([
      ["keys", stack(all.map(({ member }) => member.key), wide)],
      ["centers", stack(all.map(({ cluster }) => cluster.center), wide)],
      ["radius", stack(all.map(({ cluster }) => Float32Array.of(cluster.radius)), [])],
      ...factors("A"),
      ...factors("B"),
    ]),
  };
}
