/** The fixtures of tools/fixtures/tracing.py: what the authors' causal tracing finds on tiny models. */
import type { TracePrompt } from "../../editors/tracing/runs.ts";
import { openFile } from "../../engine/io/source.ts";
import { parseSafetensors } from "../../engine/io/safetensors.ts";

export const TRACING = new URL("../fixtures/tracing/", import.meta.url).pathname;

/** A prompt with the noise ν of its trace and the probabilities that its grids are seen against. */
export interface TraceCase extends TracePrompt {
  noise: number;
  clean: number;
  corrupted: number;
  /** The subject encoded by itself. */
  subject_ids: number[];
}

export async function traceCases(model: string): Promise<Record<string, TraceCase>> {
  return JSON.parse(await Deno.readTextFile(`${TRACING}${model}/cases.json`));
}

/** Grids [T, L] by "case.kind.window", the deviation of the embeddings, and the first draws of the noise. */
export async function traceTensors(model: string): Promise<Map<string, Float32Array>> {
  const file = await parseSafetensors(await openFile(`${TRACING}${model}/grids.safetensors`));
  const out = new Map<string, Float32Array>();
  for (const entry of file.entries.values()) {
    out.set(entry.name, new Float32Array((await file.read(entry)).slice().buffer));
  }
  file.source.close();
  return out;
}
