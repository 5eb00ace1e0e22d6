/** The fixtures of tools/fixtures/kn.py: what the released code finds on tiny models. */
import { openFile } from "../../engine/io/source.ts";
import { parseSafetensors } from "../../engine/io/safetensors.ts";
import type { Neuron } from "../../editors/neurons/select.ts";

const FIXTURES = new URL("../fixtures/", import.meta.url).pathname;

export const MODELS = `${FIXTURES}models/`;

type Pair = [layer: number, index: number];

/** A fact of a made-up relation. */
export interface KnFact {
  prompts: number[][];
  answer: number;
  /** Of each prompt. */
  coarse: Pair[][];
  refined: Pair[];
  /** The neurons that were suppressed and enhanced. */
  chosen: Pair[];
  /** P(answer) at each prompt. */
  probabilities: { before: number; suppressed: number; enhanced: number }[];
}

/** An edit of EasyEdit's KN. */
export interface EasyEditCase {
  case: string;
  ids: number[];
  truth: number[];
  target: number[];
  steps: number;
  threshold: number;
  neurons: Pair[];
  /** The model's greedy continuation, as long as the target. */
  says: number[];
}

export interface KnCase {
  model: string;
  steps: number;
  relations: { name: string; facts: KnFact[]; shared: Pair[] }[];
  easyedit: EasyEditCase[];
}

export async function knCase(name: string): Promise<KnCase> {
  return JSON.parse(await Deno.readTextFile(`${FIXTURES}kn/${name}.json`));
}

/** The prompt of tools/fixtures/kn_smollm2.py: the released code on SmolLM2 in f64. */
export interface RealCase {
  file: string;
  ids: number[];
  answer: number;
  steps: number;
  layers: number[];
  /** How far the same code is off in f32, by layer, relative to the layer's largest attribution. */
  f32_off: number[];
}

export async function realCase(): Promise<RealCase> {
  return JSON.parse(await Deno.readTextFile(`${FIXTURES}kn/smollm2.json`));
}

/** `select_kn` on made-up sets. */
export async function knSelections(): Promise<{ facts: Pair[][]; selected: Pair[][] }> {
  return JSON.parse(await Deno.readTextFile(`${FIXTURES}kn/selection.json`));
}

export async function knTensors(name: string): Promise<Map<string, Float32Array>> {
  const file = await parseSafetensors(await openFile(`${FIXTURES}kn/${name}.safetensors`));
  const out = new Map<string, Float32Array>();
  for (const entry of file.entries.values()) {
    out.set(entry.name, new Float32Array((await file.read(entry)).slice().buffer));
  }
  file.source.close();
  return out;
}

/** Neurons as the fixtures have them. */
export function pairsOf(neurons: readonly Neuron[]): Pair[] {
  return neurons.map(({ layer, index }) => [layer, index]);
}

export function neuronsOf(pairs: readonly Pair[]): Neuron[] {
  return pairs.map(([layer, index]) => ({ layer, index }));
}
