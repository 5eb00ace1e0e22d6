/**
 * The firewall: an edit is measured before it is kept. One that breaks a budget is taken back to the largest
 * share of its ΔW that breaks none, if it still does there what it was made for; otherwise it is refused.
 *
 * Shares are multiples of 1/32, searched by bisection: damage and success are taken to grow with the share, so
 * the largest share within the budgets is also the likeliest of them to succeed.
 */
import { applyEdit, type Edit } from "../editors/edit.ts";
import { fill } from "../editors/requests.ts";
import { show } from "../engine/io/errors.ts";
import type { Model } from "../engine/models/model.ts";
import { drift, type DriftBaseline, driftBaseline } from "./drift.ts";
import { largestGrowth, overlaidChanges } from "./norms.ts";
import { type PackProbe, probeName } from "./pack.ts";
import { readProbes, requireHeld, runProbes, type Said } from "./pack_run.ts";
import { editSucceeded, requestStates } from "./state.ts";

/** What an edit may cost; what is absent is not looked at. */
export interface Budgets {
  /** `drift.kl` at most: mean KL of the next-token distributions on neutral prompts, nats. */
  maxDrift?: number;
  /** ‖W+ΔW‖/‖W‖ − 1 at most, of every edited weight. */
  maxNormGrowth?: number;
  /** Probes that must hold as before. */
  keep?: readonly PackProbe[];
}

/** The model before the edits that are judged. */
export interface GuardBaseline extends Disposable {
  readonly drift?: DriftBaseline;
  /** What it says to the probes to keep. */
  readonly keep: readonly Said[];
}

/** One budget, looked at. */
export interface Check {
  name: "max-drift" | "max-norm-growth" | "keep";
  /** The probe's name, of `keep`. */
  probe?: string;
  /** The budget: a number, or what must be said. */
  limit: number | string;
  /** The edit in full. */
  full: number | string;
  /** At the scale that is kept; in full when the edit is refused. */
  value: number | string;
  /** Does the edit in full break it? */
  bound: boolean;
  /** Is `value` within the limit? */
  ok: boolean;
}

/** What becomes of an edit. */
export interface Guarded {
  /** The edit as it may be kept; the one given when it is within its budgets or refused. */
  edit: Edit;
  /** The share of ΔW that is kept: 1 in full, 0 when refused. */
  scale: number;
  checks: Check[];
  /** Budgets that the edit in full breaks, a sentence each. */
  broken: string[];
  /** Why nothing of the edit can be kept; absent when something is. */
  refused?: string;
}

/** Shares are i / SCALES. */
const SCALES = 32;

/**
 * Takes the baseline on the unedited model, once for any number of edits.
 * @throws {InputError} when a probe with an answer does not hold to begin with
 */
export async function guardBaseline(model: Model, budgets: Budgets): Promise<GuardBaseline> {
  const probes = budgets.keep ?? [];
  const keep = await readProbes(model, probes);
  requireHeld(await runProbes(model, probes, { before: keep }));
  const options = { text: false, repetition: false } as const;
  const baseline = budgets.maxDrift === undefined ? undefined : await driftBaseline(model, options);
  return { drift: baseline, keep, [Symbol.dispose]: () => baseline?.[Symbol.dispose]() };
}

/**
 * Judges an edit by its budgets. The model is given without it and left without it; other edits may lie on it.
 */
export async function guard(
  model: Model,
  edit: Edit,
  budgets: Budgets,
  baseline: GuardBaseline,
): Promise<Guarded> {
  const at = async (scale: number) => {
    using _applied = applyEdit(model, scaled(edit, scale));
    return await measure(model, budgets, baseline);
  };
  const full = await at(1);
  const bad = full.filter(({ ok }) => !ok);
  const checks = (now: Measured[]): Check[] =>
    now.map((m, i) => ({ ...m, full: full[i].value, bound: !full[i].ok }));
  if (bad.length === 0) return { edit, scale: 1, checks: checks(full), broken: [] };
  const broken = bad.map(sentence);
  const refuse = (refused: string) => ({ edit, scale: 0, checks: checks(full), broken, refused });

  if (edit.additions?.length) return refuse("What stands beside the weights cannot be taken back in part");
  if (edit.prompts) return refuse("What stands before prompts cannot be taken back in part");
  const wanted = await succeeding(model, edit);
  if (wanted.length === 0) return refuse("The edit does not take even in full");
  let within: Measured[] | undefined;
  let low = 0, high = SCALES;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    const measured = await at(middle / SCALES);
    if (measured.every(({ ok }) => ok)) [low, within] = [middle, measured];
    else high = middle;
  }
  if (!within) return refuse(`Even 1/${SCALES} of the edit breaks a budget`);
  const scale = low / SCALES;
  const least = scaled(edit, scale);
  const taken = new Set(await succeeding(model, least));
  const lost = wanted.find((i) => !taken.has(i));
  if (lost !== undefined) {
    const { prompt, subject } = edit.requests[lost];
    return refuse(
      `Within the budgets, at ${scale} of its strength, the edit of ${show(fill(prompt, subject).text)} ` +
        "does not take",
    );
  }
  return { edit: least, scale, checks: checks(within), broken };
}

/** A share of an edit; its scale is kept with the hyper-parameters that made it. */
export function scaled(edit: Edit, scale: number): Edit {
  if (scale === 1) return edit;
  return {
    ...edit,
    hparams: { ...edit.hparams, firewall_scale: scale },
    deltas: edit.deltas.map((delta) => ({
      ...delta,
      left: delta.left.map((x) => x * scale),
      ...(delta.dense ? { dense: delta.dense.map((x) => x * scale) } : {}),
    })),
  };
}

type Measured = Omit<Check, "full" | "bound">;

/** The budgets on the model as it is. */
async function measure(model: Model, budgets: Budgets, baseline: GuardBaseline): Promise<Measured[]> {
  const { maxDrift, maxNormGrowth, keep = [] } = budgets;
  const out: Measured[] = [];
  const number = (name: Check["name"], limit: number, value: number) =>
    out.push({ name, limit, value, ok: value <= limit });
  if (maxDrift !== undefined) {
    number("max-drift", maxDrift, (await drift(model, baseline.drift!))["drift.kl"]);
  }
  if (maxNormGrowth !== undefined) {
    number("max-norm-growth", maxNormGrowth, largestGrowth(await overlaidChanges(model)));
  }
  const { probes } = await runProbes(model, keep, { before: baseline.keep });
  for (const { probe, expected, said, outcome } of probes) {
    const named = { name: "keep", probe: probeName(probe) } as const;
    out.push({ ...named, limit: expected, value: said, ok: outcome === "passed" });
  }
  return out;
}

/** Requests that an edit fulfils, by position. */
async function succeeding(model: Model, edit: Edit): Promise<number[]> {
  using _applied = applyEdit(model, edit);
  const states = await requestStates(model, edit.requests);
  return edit.requests.flatMap((request, i) => editSucceeded(request, states[i]) ? [i] : []);
}

/** A broken budget for people. */
function sentence({ name, probe, limit, value }: Measured): string {
  if (name === "keep") return `The edit in full changes ${show(probe)}: ${value} instead of ${limit}`;
  const figure = (x: number | string) => typeof x === "number" ? String(Number(x.toPrecision(3))) : x;
  return name === "max-drift"
    ? `The edit in full drifts by ${figure(value)} nats on neutral prompts; the budget is ${figure(limit)}`
    : `The edit in full lets a weight's norm grow by ${figure(value)}; the budget is ${figure(limit)}`;
}
