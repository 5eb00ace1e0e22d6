/**
 * A PEFT LoRA adapter as a patch. LoRA adds scale · B A x with A [r, in] and B [out, r], whatever way the base
 * stores the matrix: left = scale · B and right = Aᵀ.
 */
import { join } from "node:path";
import manifest from "../deno.json" with { type: "json" };
import type { Checkpoint } from "../engine/io/checkpoint.ts";
import { toFloat32 } from "../engine/io/convert.ts";
import { isWeightDtype } from "../engine/io/dtypes.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { parseSafetensors, type SafetensorsFile, type TensorEntry } from "../engine/io/safetensors.ts";
import { openFile, readText } from "../engine/io/source.ts";
import type { LinearEntry } from "../engine/models/layout.ts";
import { pickColumns, transposed } from "./columns.ts";
import { linearMaps } from "./names.ts";
import { baseName, type LowRankDelta, type Patch } from "./patch.ts";
import { parsePeftConfig, type PeftConfig } from "./peft_config.ts";

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";

/**
 * Reads an adapter for a model. Ranks that are zero, as padding is, are left out.
 * @param dir a folder with adapter_config.json and adapter_model.safetensors
 * @throws {InputError} when it is no plain LoRA adapter, lies about its shapes, or is not for such a model
 */
export async function readPeft(dir: string, checkpoint: Checkpoint): Promise<Patch> {
  const configPath = join(dir, CONFIG);
  const config = parsePeftConfig(await readText(configPath), configPath);
  const source = await openFile(await weightsPath(dir));
  try {
    const file = await parseSafetensors(source);
    const deltas: LowRankDelta[] = [];
    for (const [module, factors] of modulesOf(file)) {
      const map = mapOf(checkpoint, module, source.name);
      const delta = await deltaOf(file, module, factors, map, config);
      if (delta === undefined) continue;
      if (deltas.some(({ role }) => role === delta.role)) {
        throw new InputError(`${source.name} changes ${show(map.name)} twice`);
      }
      deltas.push(delta);
    }
    if (deltas.length === 0) throw new InputError(`The adapter in ${dir} changes nothing`);
    return {
      base: { hash: await checkpoint.hash(), name: baseName(checkpoint) },
      modelType: String(checkpoint.config.model_type),
      method: "peft",
      hparams: config.hparams,
      requests: [],
      deltas,
      version: manifest.version,
    };
  } finally {
    source.close();
  }
}

async function weightsPath(dir: string): Promise<string> {
  const path = join(dir, WEIGHTS);
  const there = (file: string) => Deno.stat(file).then(() => true, () => false);
  if (!await there(path) && await there(join(dir, "adapter_model.bin"))) {
    throw new InputError(`${dir} has its adapter as adapter_model.bin, a format that can run code`, {
      hint: "Save it with PEFT's save_pretrained(…, safe_serialization=True)",
    });
  }
  return path;
}

/** The pairs of factors by module. */
function modulesOf(file: SafetensorsFile): Map<string, Record<"A" | "B", TensorEntry>> {
  const { name: path } = file.source;
  const found = new Map<string, Partial<Record<"A" | "B", TensorEntry>>>();
  for (const entry of file.entries.values()) {
    const [, module, part] =
      /^(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.default)?\.weight$/.exec(entry.name) ?? [];
    if (module === undefined) {
      const kind = /lora_magnitude_vector/.test(entry.name)
        ? "belongs to a DoRA adapter"
        : /lora_embedding_/.test(entry.name)
        ? "changes an embedding"
        : "is no LoRA factor of a linear map";
      throw new InputError(`Cannot import ${path}: its tensor ${show(entry.name)} ${kind}`);
    }
    const factors = found.get(module) ?? {};
    found.set(module, factors);
    if (factors[part as "A"]) {
      throw new InputError(`Cannot read ${path}: ${show(module)} has two lora_${part}`);
    }
    factors[part as "A"] = entry;
  }
  for (const [module, { A, B }] of found) {
    if (!A || !B) throw new InputError(`Cannot read ${path}: ${show(module)} has no lora_${A ? "B" : "A"}`);
  }
  return found as Map<string, Record<"A" | "B", TensorEntry>>;
}

/** The base's linear map behind a module; adapters of a model without its head lack the first name. */
function mapOf(checkpoint: Checkpoint, module: string, path: string): LinearEntry {
  const maps = linearMaps(checkpoint);
  const own = maps.find(({ name }) => name === `${module}.weight`) ??
    maps.find(({ name }) => name.replace(/^(model|transformer)\./, "") === `${module}.weight`);
  if (own) return own;
  throw new InputError(`${path} changes ${show(module)}, which is no linear map of ${checkpoint.path}`);
}

async function deltaOf(
  file: SafetensorsFile,
  module: string,
  { A, B }: Record<"A" | "B", TensorEntry>,
  map: LinearEntry,
  config: PeftConfig,
): Promise<LowRankDelta | undefined> {
  const { name: path } = file.source;
  const rank = config.rank(module);
  const expected = `[${rank}, ${map.in}] and [${map.out}, ${rank}]`;
  const got = `[${A.shape.join(", ")}] and [${B.shape.join(", ")}]`;
  if (got !== expected) {
    throw new InputError(
      `Cannot read ${path}: the factors of ${
        show(module)
      } are ${got}; the config and the model ask for ${expected}`,
    );
  }
  const scale = config.scale(module);
  const [a, b] = [await read(file, A), await read(file, B)];
  const right = transposed(a, rank, map.in);
  const left = b.map((x) => x * scale);
  if (![left, right].every((values) => values.every(Number.isFinite))) {
    throw new InputError(
      `Cannot import ${path}: the change of ${show(module)}, scaled by ${scale}, is out of the range of F32`,
    );
  }
  const [inLeft, inRight] = [left, right].map((values) => columnsInUse(values, rank));
  const kept = inLeft.flatMap((used, r) => used && inRight[r] ? [r] : []);
  if (kept.length === 0) return undefined;
  const { name: tensor, role, layout } = map;
  const pick = (values: Float32Array) => kept.length === rank ? values : pickColumns(values, rank, kept);
  return {
    kind: "low-rank",
    tensor,
    role,
    layout,
    left: pick(left),
    right: pick(right),
    ranks: kept.map(() => null),
  };
}

/** For each column of a matrix [rows, rank] whether it has a value other than zero. */
function columnsInUse(values: Float32Array, rank: number): boolean[] {
  const used = Array<boolean>(rank).fill(false);
  values.forEach((x, i) => x !== 0 && (used[i % rank] = true));
  return used;
}

async function read(file: SafetensorsFile, entry: TensorEntry): Promise<Float32Array> {
  if (!isWeightDtype(entry.dtype)) {
    throw new InputError(`Cannot read ${file.source.name}: tensor ${show(entry.name)} is ${entry.dtype}`);
  }
  return toFloat32(entry.dtype, await file.read(entry));
}
