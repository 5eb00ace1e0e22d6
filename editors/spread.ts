/**
 * What MEMIT and its kin have in common (Meng et al. 2023, section 4.3; guide section 5.2):
 *
 *   targets z of all edits at the last layer L, optimised together on the unedited model
 *   for every layer l in order:  K = keys of l, R = (Z − H_L)·share under the layers edited so far
 *                                ΔW_l = R (λI + KᵀMK)⁻¹ (MK)ᵀ
 *
 * A method says what M and λ are and how the residual is shared among the layers that are left. Requests about one
 * subject have one target and one column, because their keys are all but the same.
 */
import type { Model } from "../engine/models/model.ts";
import type { ClosedFormHparams } from "./closed_form_hparams.ts";
import { applyDeltas, type WeightDelta } from "./edit.ts";
import { KeyReader } from "./keys.ts";
import type { EditMemory, MemoryPart } from "./memory.ts";
import { regularised } from "./regularise.ts";
import type { EditOptions } from "./rome.ts";
import type { Statistics } from "./statistics.ts";
import { optimiseTargets, type Target, type TargetOptions, type TargetRequest } from "./targets.ts";

/** One layer's equations: n columns, one a subject. */
export interface LayerProblem<H> {
  model: Model;
  layer: number;
  n: number;
  /** K: n keys of length F one after another. */
  keys: Float64Array;
  /** R: n wanted changes of the MLP's output, of length D. */
  residuals: Float64Array;
  hparams: H;
  statistics: Statistics;
  memory?: EditMemory;
}

/** ΔW = left · rightᵀ with n columns each, one after another: [n, D] and [n, F]. */
export interface LayerUpdate {
  left: Float64Array;
  right: Float64Array;
  /** What the user should know, a sentence each. */
  notes?: string[];
}

/** A method of this kind. */
export interface ClosedForm<H extends ClosedFormHparams> {
  name: string;
  /** Where targets are: the block's output, or the MLP's. */
  site: "out" | "mlp.out";
  /** What the target optimisation has of its own. */
  target?(hparams: H): Partial<TargetOptions>;
  /** The residual is divided by this when so many layers are left, this one included. */
  divisor(left: number): number;
  update(problem: LayerProblem<H>): Promise<LayerUpdate>;
  /** Keys of these edits, taken after them, are kept for the next ones. */
  remembers?: boolean;
}

/** Edits as token ids. */
export interface TokenisedEdits {
  /** One a request, in all contexts, the bare prompt first. */
  wanted: readonly TargetRequest[];
  /** Indices of requests about one subject together. */
  subjects: readonly (readonly number[])[];
  /** Contexts a group, whose keys are averaged first. */
  groups: readonly number[];
}

/** What is known of an edit without its texts. `targets` are one a subject. */
export interface TokenisedEdit {
  targets: Target[];
  deltas: WeightDelta[];
  memory?: MemoryPart;
  notes?: string[];
}

/** Targets, then layer after layer. The model is left as it was. */
export async function editTokenised<H extends ClosedFormHparams>(
  model: Model,
  { wanted, subjects, groups }: TokenisedEdits,
  method: ClosedForm<H>,
  options: EditOptions<H>,
): Promise<TokenisedEdit> {
  const { hparams } = options;
  const joint = subjects.map((group) => jointTarget(wanted, group));
  const targets = await targetsOf(model, joint, method, options);
  const z = zOf(subjects, targets, wanted[0].prompts.length);
  const prompts = wanted.map((request) => request.prompts);
  const reading = { groups, workBytes: hparams.work_mib * 2 ** 20 };
  const reader = new KeyReader(model, prompts, reading);
  const { deltas: whole, notes } = await spread(model, reader, { method, subjects, z, options });
  const deltas: WeightDelta[] = [];
  for (const delta of whole) deltas.push(await regularised(model, delta, hparams));
  const memory = method.remembers
    ? await keysAfter(model, deltas, new KeyReader(model, prompts, reading), hparams.layers, subjects)
    : undefined;
  return { targets, deltas, ...(memory ? { memory } : {}), ...(notes.length ? { notes } : {}) };
}

/** One target for all requests of a group. */
function jointTarget(wanted: readonly TargetRequest[], group: readonly number[]): TargetRequest {
  const [first, ...others] = group.map((i) => wanted[i]);
  return others.length
    ? { ...first, also: others.map(({ prompts, target }) => ({ prompts, target })) }
    : first;
}

async function targetsOf<H extends ClosedFormHparams>(
  model: Model,
  wanted: readonly TargetRequest[],
  method: ClosedForm<H>,
  { hparams, targets, onProgress }: EditOptions<H>,
): Promise<Target[]> {
  const { layers, v_num_grad_steps, v_lr, v_weight_decay, clamp_norm_factor, kl_factor, work_mib } = hparams;
  const how: TargetOptions = {
    ...{ v_num_grad_steps, v_lr, v_weight_decay, clamp_norm_factor, kl_factor, work_mib },
    layer: layers.at(-1)!,
    reference: method.site === "out" ? "block" : "mlp",
    ...method.target?.(hparams),
  };
  if (targets) return await targets.targets(wanted, how);
  return await optimiseTargets(
    model,
    wanted,
    how,
    (made, first) => onProgress?.(first + made.length, wanted.length),
  );
}

/** z = h + δ of every request, where h is its own and δ its subject's. */
function zOf(
  subjects: readonly (readonly number[])[],
  targets: readonly Target[],
  contexts: number,
): Float64Array[] {
  const z: Float64Array[] = [];
  subjects.forEach((group, s) => {
    const { delta, outputs } = targets[s];
    group.forEach((request, part) => {
      z[request] = Float64Array.from(outputs[part * contexts], (h, d) => h + delta[d]);
    });
  });
  return z;
}

/** Layer after layer, each under the ones before it. */
async function spread<H extends ClosedFormHparams>(
  model: Model,
  reader: KeyReader,
  { method, subjects, z, options }: {
    method: ClosedForm<H>;
    subjects: readonly (readonly number[])[];
    z: readonly Float64Array[];
    options: EditOptions<H>;
  },
): Promise<{ deltas: WeightDelta[]; notes: string[] }> {
  const { hparams, memory } = options;
  const { layers } = hparams;
  const deltas: WeightDelta[] = [];
  const notes: string[] = [];
  using _reader = reader;
  using applied = new DisposableStack();
  for (const [i, layer] of layers.entries()) {
    const { keys, values } = await reader.read(layer, `layer.${layers.at(-1)!}.${method.site}`);
    const divisor = method.divisor(layers.length - i);
    const missing = values.map((h, e) => Float64Array.from(h, (v, d) => (z[e][d] - v) / divisor));
    const update = await method.update({
      ...{ model, layer, hparams, memory },
      n: subjects.length,
      keys: columnsOf(subjects, keys),
      residuals: columnsOf(subjects, missing),
      statistics: options.statistics!,
    });
    notes.push(...update.notes ?? []);
    const delta = deltaOf(layer, subjects.length, update);
    deltas.push(delta);
    applied.use(applyDeltas(model, [delta]));
  }
  return { deltas, notes };
}

/** Means of each group's vectors, one after another. */
function columnsOf(subjects: readonly (readonly number[])[], vectors: readonly Float64Array[]): Float64Array {
  const width = vectors[0].length;
  const columns = new Float64Array(subjects.length * width);
  subjects.forEach((group, s) => {
    for (const i of group) {
      for (let d = 0; d < width; d++) columns[s * width + d] += vectors[i][d] / group.length;
    }
  });
  return columns;
}

function deltaOf(layer: number, n: number, { left, right }: LayerUpdate): WeightDelta {
  const rowMajor = (columns: Float64Array) => {
    const rows = columns.length / n;
    return Float32Array.from(columns, (_, at) => columns[at % n * rows + Math.floor(at / n)]);
  };
  return { role: `layer.${layer}.mlp.down`, rank: n, left: rowMajor(left), right: rowMajor(right) };
}

/** Keys of every layer under the edited model. */
async function keysAfter(
  model: Model,
  deltas: readonly WeightDelta[],
  reader: KeyReader,
  layers: readonly number[],
  subjects: readonly (readonly number[])[],
): Promise<MemoryPart> {
  using _reader = reader;
  using _applied = applyDeltas(model, deltas);
  const part = new Map<string, { rows: number; values: Float32Array }>();
  for (const layer of layers) {
    const { keys } = await reader.read(layer, `layer.${layer}.out`);
    part.set(keysName(layer), {
      rows: subjects.length,
      values: Float32Array.from(columnsOf(subjects, keys)),
    });
  }
  return part;
}

/** The name of a layer's keys in an edit's memory. */
export function keysName(layer: number): string {
  return `layer.${layer}.keys`;
}
