/** Readings of atlas with the authors' scores of them (tools/fixtures/metrics.py), and short hands for probes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Probe, ProbeKind } from "../../../evaluation/cases.ts";
import type { Forced, Metrics, Reading, Readings } from "../../../evaluation/records.ts";

const FOLDER = join(import.meta.dirname!, "../../fixtures/metrics");

/** A case of a fixture; `Authors` is what was computed for it. */
export interface Scored<Authors> {
  id: string;
  probes: Probe[];
  references?: string[];
  before: Readings;
  after: Readings;
  authors: Authors;
}

export function fixture<T>(name: string): T {
  return JSON.parse(Deno.readTextFileSync(join(FOLDER, `${name}.json`)));
}

/** The values under keys with this start, in their order. */
export function members<T>(file: Record<string, unknown>, start: string): T[] {
  return Object.entries(file).filter(([key]) => key.startsWith(start)).map(([, value]) => value as T);
}

/** Numbers agree: the authors' are f32 in places, ours f64. */
export function near(actual: number | undefined, expected: number, what = "", tolerance = 1e-6): void {
  assert.ok(
    actual !== undefined && Math.abs(actual - expected) <= tolerance,
    `${what} is ${actual}, wanted ${expected}`,
  );
}

/** Every name of `expected` is near, and so present. */
export function allNear(actual: Metrics, expected: Record<string, number>, what = ""): void {
  for (const [name, value] of Object.entries(expected)) near(actual[name], value, `${what} ${name}`);
}

/** An answer as the model takes it: its tokens 1, 2, 3 …, hit where `hits` has a 1, with these log-probabilities. */
export function said(hits: string, logProbs: number[] = [...hits].map(() => -1)): Forced {
  const tokens = [...hits].map((_, i) => i + 1);
  return { text: "", tokens, logProbs, argmax: tokens.map((id, i) => hits[i] === "1" ? id : 0) };
}

/** A probe with one answer. */
export function asking(kind: ProbeKind, more: Partial<Probe> = {}): Probe {
  return { kind, prompt: "q", answers: [["x"]], expect: "answer", ...more };
}

/** A case of probes and what the model says to each, after and (if given) before. */
export function caseOf(
  rows: { probe: Probe; after: Reading; before?: Reading }[],
  texts?: string[],
): { probes: Probe[]; before: Readings; after: Readings } {
  return {
    probes: rows.map(({ probe }) => probe),
    before: { probes: rows.map(({ before, after }) => before ?? after), texts },
    after: { probes: rows.map(({ after }) => after), texts },
  };
}
