/** What the tests of patches share: models, edits of seeded noise, logits, and the bytes of folders. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { basename, join } from "node:path";
import type { Edit, WeightDelta } from "../../editors/edit.ts";
import type { Checkpoint } from "../../engine/io/checkpoint.ts";
import { toFloat32 } from "../../engine/io/convert.ts";
import { parseSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { packRows } from "../../engine/models/rows.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { logits } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../../engine/tensor/tensor.ts";
import { readF32 } from "../../engine/tensor/transfer.ts";
import { linearMaps } from "../../patches/names.ts";
import type { LowRankDelta, Patch } from "../../patches/patch.ts";
import { normals } from "../engine/ops/_reference.ts";

/** A tiny model's folder. */
export function modelFolder(name: string): string {
  return new URL(`../fixtures/models/${name}`, import.meta.url).pathname;
}

/** Logits of whole sequences, [Σ T, vocab] in order. */
export async function logitsOf(model: Model, sequences: number[][]): Promise<Float32Array> {
  const { gpu, dims } = model;
  using rows = packRows(gpu, sequences.map((ids) => ({ ids })), { windows: dims.windows });
  const ctx = { gpu, r: gpu.recorder() };
  const kept = createTensor(gpu, "logits", [rows.count, dims.vocab]);
  copy(ctx, logits(ctx, finalNorm(ctx, model, forward(ctx, model, rows)), weight(model, "head")), kept);
  using plan = ctx.r.finish("logits");
  plan.run();
  const values = await readF32(gpu, kept);
  freeTensor(gpu, kept);
  return values;
}

/** ΔW of a role as seeded noise; entries of about 0.05 change tiny models' logits by a tenth or more. */
export function noise(model: Model, role: string, rank: number, seed: number): WeightDelta {
  const w = weight(model, role);
  const left = Float32Array.from(normals(w.out * rank, seed, 0.3));
  const right = Float32Array.from(normals(w.in * rank, seed + 1, 0.3));
  return { role, rank, left, right };
}

/** An edit of one request for each delta. */
export function editOf(deltas: WeightDelta[]): Edit {
  const requests = deltas.map((_, i) => ({
    prompt: `{} number ${i} is in`,
    subject: "Paris",
    target: " Italy",
  }));
  const hparams = { layers: [1], v_lr: 0.5, kl_factor: 0.0625 };
  return { method: "rome", hparams, requests, deltas, outcomes: [] };
}

/** Every file of a folder by name. */
export async function filesOf(folder: string): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {};
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (isFile) files[name] = await Deno.readFile(join(folder, name));
  }
  return files;
}

/** A tensor of a safetensors file as f32. */
export async function readTensor(
  path: string,
  name: string,
): Promise<{ shape: number[]; values: Float32Array }> {
  const source = await openFile(path);
  const file = await parseSafetensors(source);
  const entry = file.entries.get(name);
  assert.ok(entry, `${path} has no ${name}`);
  const values = toFloat32(entry.dtype as "F32", await file.read(entry));
  source.close();
  return { shape: entry.shape, values };
}

/** The tokenizer is not loaded: tiny models have none. */
export const NO_TOKENIZER = { tokenizer: false };

/** The base's weight named `tensor`, in f32 and stored order. */
export async function baseTensor(model: LoadedModel, tensor: string): Promise<Float32Array> {
  const info = model.checkpoint.weights.get(tensor)!;
  return toFloat32(info.dtype, await model.checkpoint.rows(tensor, 0, info.shape[0]));
}

/** A patch of seeded noise for linear maps of a checkpoint, without a device: one request, and ranks of it. */
export async function noisePatch(
  checkpoint: Checkpoint,
  ranks: Record<string, number>,
  seed: number,
): Promise<Patch> {
  const maps = linearMaps(checkpoint);
  const deltas = Object.entries(ranks).map(([role, rank], i): LowRankDelta => {
    const { name: tensor, layout, out, in: inner } = maps.find((map) => map.role === role)!;
    const f32 = (n: number, k: number) => Float32Array.from(normals(n, seed + 10 * i + k, 0.3));
    const [left, right] = [f32(out * rank, 1), f32(inner * rank, 2)];
    return { kind: "low-rank", tensor, role, layout, left, right, ranks: Array(rank).fill(0) };
  });
  return {
    base: { hash: await checkpoint.hash(), name: basename(checkpoint.path) },
    modelType: String(checkpoint.config.model_type),
    method: "rome",
    hparams: {},
    requests: [{ prompt: "{} is in", subject: `City ${seed}`, target: " Italy" }],
    deltas,
    version: "0.1.0",
  };
}

/** Copies a folder's files. */
export async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to);
  for (const [name, bytes] of Object.entries(await filesOf(from))) {
    await Deno.writeFile(join(to, name), bytes);
  }
}

/** Two folders' files (see {@link filesOf}) are the same; says which differ instead of printing megabytes. */
export function assertSameFiles(got: Record<string, Uint8Array>, wanted: Record<string, Uint8Array>): void {
  assert.deepEqual(Object.keys(got).sort(), Object.keys(wanted).sort());
  const differ = Object.keys(got).filter((name) => Buffer.compare(got[name], wanted[name]) !== 0);
  assert.deepEqual(differ, []);
}
