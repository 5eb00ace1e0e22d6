/**
 * The memory of ordinary text: what T-Patcher's layer reads in texts that the unedited model writes by itself. The
 * authors read their training data, which a program that holds only the model does not have. Writing and reading
 * them costs more than an edit, so they are kept: in the process, and in the user's cache under the fingerprint of
 * the weights.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { cacheFolder } from "../../engine/io/cache.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import type { Model } from "../../engine/models/model.ts";
import { ordinaryTexts } from "../beside/ordinary.ts";
import { readMemory, writeMemory } from "../memory.ts";
import type { Queries } from "../t_patcher.ts";
import { readQueries } from "./mistakes.ts";
import { joinRows, splitRows } from "./patches.ts";

/** Two halves: one to train on, one to validate. */
export interface Ordinary {
  train: Queries;
  validate: Queries;
}

/** Tokens of a text. */
const TEXT = 32;
/** Counts the ways in which texts have been made. */
const VERSION = 1;

const known = new WeakMap<Model["weights"], Map<string, Ordinary>>();

/** What the layer reads at `size` tokens of ordinary text. Call it before the first edit lies on the model. */
export async function ordinaryQueries(
  model: Model,
  { layer, size, seed }: { layer: number; size: number; seed: number },
): Promise<Ordinary> {
  const key = [VERSION, layer, size, seed].join();
  const mine = known.get(model.weights) ?? new Map<string, Ordinary>();
  known.set(model.weights, mine);
  const found = mine.get(key);
  if (found) return found;
  const path = await pathOf(model, key);
  const kept = await readMemory(path).catch(() => undefined);
  const queries = kept?.has("queries") ? splitRows(kept.get("queries")!) : await made();
  const half = queries.length >> 1;
  const ordinary = { train: queries.slice(0, half), validate: queries.slice(half) };
  mine.set(key, ordinary);
  return ordinary;

  async function made(): Promise<Queries> {
    const texts = await ordinaryTexts(model, Math.ceil(size / TEXT), TEXT, seed);
    const rows = (await readQueries(model, layer, texts)).slice(0, size);
    // Only a convenience: a full disk must not end an edit.
    await writeMemory(path, new Map([["queries", joinRows(rows)]])).catch(() => {});
    return rows;
  }
}

async function pathOf(model: Model, key: string): Promise<string> {
  const weights = await fingerprint(model);
  const name = createHash("sha256").update(JSON.stringify([model.gpu.description, weights, key])).digest(
    "hex",
  );
  return join(cacheFolder(), "ordinary", `${name.slice(0, 32)}.safetensors`);
}
