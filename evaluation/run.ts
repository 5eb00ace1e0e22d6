/**
 * Evaluation runs (guide section 10). Cases are edited in groups of `batch`:
 *
 *   single            one at a time, on the original weights, restored after each
 *   batch             B together, on the original weights, restored after each group
 *   sequential        one at a time, on the weights as the edits before left them
 *   sequential-batch  B together, likewise
 *
 * Every case is read before (always on the original weights) and right after its edit; the sequential
 * protocols read all cases once more after the last edit. Restoring is proven by the weights' fingerprint.
 */
import { denseDelta, type Edit } from "../editors/edit.ts";
import type { Hparams } from "../editors/hparams.ts";
import { EditMemory, readMemory, writeMemory } from "../editors/memory.ts";
import type { Method } from "../editors/methods.ts";
import { fill } from "../editors/requests.ts";
import type { Statistics } from "../editors/statistics.ts";
import { GpuError } from "../engine/gpu/errors.ts";
import { type TargetCache, targetCache } from "../editors/target_cache.ts";
import { InputError } from "../engine/io/errors.ts";
import { fingerprint } from "../engine/models/fingerprint.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { patchOf, readPatch, writePatch } from "../patches/patch.ts";
import { Baselines } from "./baselines.ts";
import type { EditCase } from "./cases.ts";
import { drift, type DriftBaseline, driftBaseline, weightChanges } from "./drift.ts";
import { type Budgets, guard, type GuardBaseline, guardBaseline } from "./firewall.ts";
import { EditLayers } from "./layers.ts";
import { scoreCase } from "./metrics/index.ts";
import { readCase, type ReadingPlan } from "./readings.ts";
import type { CaseLine, EditRecord, Metrics, Protocol, Readings, RetainedLine } from "./records.ts";
import { outOfProportion } from "./proportion.ts";
import type { RunFolder } from "./run_folder.ts";
import { Phases } from "./phases.ts";

/** How to run. */
export interface RunOptions {
  method: Method;
  hparams: Hparams;
  statistics?: Statistics;
  protocol: Protocol;
  /** Edits made together. */
  batch: number;
  /** Seed of context templates and sampled texts. */
  seed: number;
  plan: ReadingPlan;
  /** Measure the model elsewhere after every group. */
  drift: boolean;
  /** A firewall: every edit is taken back until it is within, or not made. */
  budgets?: Budgets;
  /** Keep optimised targets on the disk, and take those that are there; of no use in sequential protocols. */
  cacheTargets?: boolean;
  /** Told what the method says of its edits, every sentence once. */
  note?: (text: string) => void;
  /** Cases finished of all, retained ones counted apart. */
  onProgress?: (done: number, total: number, stage: "edit" | "retained") => void;
}

/** Neutral prompts that are asked after every edit, of forty. */
const NEUTRAL_PROMPTS = 16;

/** A run as it goes: what its functions share. */
interface Run extends RunOptions {
  model: LoadedModel;
  folder: RunFolder;
  baselines: Baselines;
  /** Fingerprint of the unedited weights. */
  unedited: string;
  targets?: TargetCache;
  /** What the edits so far asked to remember, in sequential protocols. */
  memory?: EditMemory;
  drifting?: DriftBaseline;
  guarding?: GuardBaseline;
  /** The edits so far, in sequential protocols. */
  layers?: EditLayers;
  /** Sentences that were told. */
  told: Set<string>;
}

/** Whether edits stay on the model. */
export function isSequential(protocol: Protocol): boolean {
  return protocol === "sequential" || protocol === "sequential-batch";
}

/**
 * Runs all cases that the folder does not have yet. The method has been prepared: context templates are the
 * unedited model's, whatever lies on it later.
 * @param cases of this shard, in order
 * @returns the lines of all of them, also of earlier sessions
 * @throws {GpuError} when the device is lost; an edit that fails is a line of its own, not an end
 */
export async function runCases(
  model: LoadedModel,
  cases: readonly EditCase[],
  folder: RunFolder,
  options: RunOptions,
): Promise<{ lines: CaseLine[]; retained?: RetainedLine[] }> {
  const sequential = isSequential(options.protocol);
  const unedited = await fingerprint(model);
  using layers = sequential ? new EditLayers(model) : undefined;
  using drifting = options.drift
    ? await driftBaseline(model, { prompts: NEUTRAL_PROMPTS, repetition: options.plan.texts })
    : undefined;
  using guarding = options.budgets && await guardBaseline(model, options.budgets);
  const run: Run = {
    ...options,
    model,
    folder,
    unedited,
    layers,
    memory: sequential ? new EditMemory() : undefined,
    targets: options.cacheTargets && !sequential ? targetCache(model, unedited) : undefined,
    baselines: new Baselines(model, cases, { ...options, weights: unedited }),
    drifting,
    guarding,
    told: new Set(),
  };
  for (let first = 0; first < cases.length; first += options.batch) {
    options.onProgress?.(first, cases.length, "edit");
    const group = cases.slice(first, first + options.batch);
    if (group.every(({ id }) => folder.lines.has(id))) {
      if (sequential) await relay(run, group);
      continue;
    }
    const lines = await runGroup(run, group);
    await folder.append(lines.filter(({ id }) => !folder.lines.has(id)));
    for (const line of lines) folder.lines.set(line.id, line);
  }
  options.onProgress?.(cases.length, cases.length, "edit");
  const lines = cases.map(({ id }) => folder.lines.get(id)!);
  return { lines, retained: sequential ? await readRetained(run, cases) : undefined };
}

/** Lays the edit of an earlier session on the model again. */
async function relay({ folder, layers, memory }: Run, group: readonly EditCase[]): Promise<void> {
  const { failed, firewall } = folder.lines.get(group[0].id)!.edit;
  if (failed !== undefined || firewall?.refused !== undefined) return;
  const patch = await readPatch(folder.editPath(group[0].index));
  const deltas = patch.deltas.map((delta) => {
    if (delta.kind === "dense") return denseDelta(delta.role, delta.values);
    return { role: delta.role, rank: delta.ranks.length, left: delta.left, right: delta.right };
  });
  await layers!.add(withGold({ ...patch, deltas }, group));
  const path = folder.memoryPath(group[0].index);
  if (await Deno.stat(path).then(() => true, () => false)) memory!.add(await readMemory(path));
}

/** Edits a group and reads its cases before and after. */
async function runGroup(run: Run, group: readonly EditCase[]): Promise<CaseLine[]> {
  const { model, layers, seed, plan } = run;
  const phases = new Phases(model.gpu);
  const before = await phases.run("before", async () => {
    const readings: Readings[] = [];
    for (const one of group) readings.push(await readUnedited(run, one));
    return readings;
  });
  const made = await phases.run("edit", () => makeEdit(run, group));
  const after: Readings[] = [];
  let elsewhere: Metrics | undefined;
  {
    using passing = layers ? undefined : new EditLayers(model);
    await phases.run("after", async () => {
      await (layers ?? passing)!.add(made.edit ?? { deltas: [] });
      for (const one of group) after.push(await readCase(model, one, plan, seed));
    });
    const { drifting } = run;
    elsewhere = drifting && await phases.run("elsewhere", () => drift(model, drifting));
  }
  const restored = layers
    ? undefined
    : await phases.run("restore", async () => await fingerprint(model) === run.unedited);
  // The edit first: a group counts as done when its lines are there.
  if (layers && made.edit) {
    await writePatch(run.folder.editPath(group[0].index), await patchOf(model, made.edit));
    if (made.edit.memory) {
      await writeMemory(run.folder.memoryPath(group[0].index), made.edit.memory);
      run.memory!.add(made.edit.memory);
    }
  }

  const costs = phases.shared(group.length);
  const { edit, ...others } = costs;
  const evaluate = Object.values(others).reduce((sum, { time_s }) => sum + time_s, 0);
  const hostBytes = Math.max(...Object.values(costs).map((cost) => cost.host_bytes));
  let request = 0;
  return group.map((one, i): CaseLine => {
    const record = made.record(request, one.requests.length);
    request += one.requests.length;
    const metrics = {
      before: scoreCase(one, before[i], before[i]),
      after: scoreCase(one, before[i], after[i]),
    };
    const { id, index, requests, probes } = one;
    return {
      id,
      index,
      requests,
      probes,
      before: before[i],
      after: after[i],
      edit: record,
      metrics,
      ...(elsewhere ? { drift: { before: run.drifting!.metrics, after: elsewhere } } : {}),
      ...(restored === undefined ? {} : { restored }),
      time_s: { edit: edit!.time_s, evaluate },
      memory: { gpu_peak_bytes: edit!.gpu_peak_bytes, host_bytes: hostBytes },
      phases: costs,
    };
  });
}

/** A case as the unedited model answers it; what lies on the model is taken off only where that is not known yet. */
function readUnedited({ baselines, layers }: Run, one: EditCase): Promise<Readings> {
  return baselines.read(one, layers && ((body) => layers.without(body)));
}

/** An edit, or why there is none. */
interface Made {
  edit?: Edit;
  /** What the line of a case with `count` requests from `first` on says. */
  record(first: number, count: number): EditRecord;
}

async function makeEdit(run: Run, group: readonly EditCase[]): Promise<Made> {
  const { model, method, hparams, statistics, seed, targets, memory, budgets, guarding } = run;
  try {
    const requests = group.flatMap((one) => one.requests);
    const whole = withGold(
      await method.run(model, requests, { hparams, statistics, seed, targets, memory }),
      group,
    );
    const cached = targets?.taken() ?? 0;
    const guarded = budgets && await guard(model, whole, budgets, guarding!);
    const refused = guarded?.refused;
    const edit = guarded?.edit ?? whole;
    const firewall = guarded && { scale: guarded.scale, ...(refused === undefined ? {} : { refused }) };
    const changes = (await weightChanges(model, edit.deltas)).map(({ growth: _, ...change }) => change);
    const notes = [...whole.notes ?? [], ...outOfProportion(changes, { ...hparams })];
    tell(run, notes);
    return {
      edit: refused === undefined ? edit : undefined,
      record(first, count) {
        const outcomes = edit.outcomes.slice(first, first + count);
        const last = outcomes.map(({ losses }) => losses.at(-1)).filter((loss) => loss !== undefined);
        const loss = last.reduce((sum, { nll, kl, wd }) => sum + nll + kl + wd, 0) / last.length;
        return {
          steps: outcomes.reduce((sum, { steps }) => sum + steps, 0),
          ...(last.length ? { loss } : {}),
          warnings: outcomes.flatMap(({ warnings }) => warnings),
          ...(first === 0 && notes.length ? { notes } : {}),
          changes: refused === undefined ? changes : [],
          ...(firewall ? { firewall } : {}),
          ...(cached > 0 ? { cached_targets: cached } : {}),
        };
      },
    };
  } catch (error) {
    // A request that cannot be edited is a result; a broken device is not.
    if (!(error instanceof InputError || error instanceof GpuError)) throw error;
    model.gpu.check();
    const failed = error.message;
    return { record: () => ({ steps: 0, warnings: [], changes: [], failed }) };
  }
}

function tell({ note, told }: Run, notes: readonly string[]): void {
  for (const text of notes) {
    if (!told.has(text)) note?.(`note: ${text}`);
    told.add(text);
  }
}

/** Tells an oracle which prompts are in scope: those that ask for the new fact or what follows from it. */
function withGold<E extends Pick<Edit, "prompts">>(edit: E, group: readonly EditCase[]): E {
  if (edit.prompts?.scope.rule !== "gold") return edit;
  let fact = 0;
  const gold = new Map<string, number>();
  for (const { requests, probes } of group) {
    for (const { prompt, expect } of probes) if (expect !== "unchanged") gold.set(prompt, fact);
    for (const request of requests) gold.set(fill(request.prompt, request.subject).text, fact++);
  }
  return { ...edit, prompts: { ...edit.prompts, gold } };
}

/** Every case after the last edit. */
async function readRetained(run: Run, cases: readonly EditCase[]): Promise<RetainedLine[]> {
  const { model, folder, plan, seed } = run;
  for (const [done, one] of cases.entries()) {
    run.onProgress?.(done, cases.length, "retained");
    const { id, index } = one;
    if (folder.retained.has(id)) continue;
    const phases = new Phases(model.gpu);
    const { before, readings } = await phases.run("retained", async () => ({
      before: await readUnedited(run, one),
      readings: await readCase(model, one, plan, seed),
    }));
    const metrics = scoreCase(one, before, readings);
    const line: RetainedLine = {
      ...{ id, index, readings, metrics },
      time_s: { evaluate: phases.costs.retained!.time_s },
      phases: phases.costs,
    };
    await folder.appendRetained(line);
    folder.retained.set(id, line);
  }
  run.onProgress?.(cases.length, cases.length, "retained");
  return cases.map(({ id }) => folder.retained.get(id)!);
}
