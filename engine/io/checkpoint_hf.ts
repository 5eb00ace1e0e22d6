/**
 * Hugging Face folders: config.json beside model.safetensors, or beside shards that
 * model.safetensors.index.json lists.
 */
import { join } from "node:path";
import type { Checkpoint } from "./checkpoint.ts";
import { DTYPE_BYTES, isWeightDtype } from "./dtypes.ts";
import { InputError, show } from "./errors.ts";
import { cachedHash, hashTensors } from "./hash.ts";
import { isObject, parseJsonObject } from "./json.ts";
import { parseSafetensors, type SafetensorsFile, type TensorEntry } from "./safetensors.ts";
import { openFile, readText } from "./source.ts";
import { readTokenizer } from "./tokenizer_files.ts";
import { checkRows, findWeight, piecesOf, type WeightInfo } from "./weights.ts";

const INDEX = "model.safetensors.index.json";

/** A tensor and the file that holds it. */
interface Stored {
  file: SafetensorsFile;
  entry: TensorEntry;
}

/**
 * Opens a model folder; see `openCheckpoint`.
 * @throws InputError naming the missing file, shard or tensor
 */
export async function openFolder(path: string): Promise<Checkpoint> {
  const names = new Set<string>();
  for await (const entry of Deno.readDir(path)) names.add(entry.name);
  if (!names.has("config.json")) {
    throw new InputError(`No config.json in ${path}`, { hint: "Give a folder in Hugging Face layout" });
  }
  const configPath = join(path, "config.json");
  const config = parseJsonObject(await readText(configPath), configPath);
  const files: SafetensorsFile[] = [];
  const close = () => files.forEach((file) => file.source.close());
  let stored: Map<string, Stored>;
  try {
    if (names.has("model.safetensors")) {
      const file = await open(join(path, "model.safetensors"), files);
      stored = new Map([...file.entries.values()].map((entry) => [entry.name, { file, entry }]));
    } else if (names.has(INDEX)) {
      stored = await openShards(path, names, files);
    } else {
      throw noWeights(path, names);
    }
  } catch (error) {
    close();
    throw error;
  }

  const weights = new Map<string, WeightInfo>();
  for (const { entry: { name, dtype, shape } } of stored.values()) {
    if (isWeightDtype(dtype)) weights.set(name, { name, dtype, shape });
  }

  return {
    kind: "hf",
    path,
    config,
    weights,
    quantised: false,
    // `async` so that a bad name or row arrives as a rejection.
    async rows(name, row0, rows) {
      const info = findWeight(weights, name, path);
      checkRows(info, row0, rows);
      const { file, entry } = stored.get(name)!;
      const rowBytes = rowSize(info);
      return await file.read(entry, row0 * rowBytes, rows * rowBytes);
    },
    async *pieces(name, maxBytes) {
      findWeight(weights, name, path);
      const { file, entry } = stored.get(name)!;
      for (const { byteOffset, length } of piecesOf(entry.bytes, maxBytes)) {
        yield { byteOffset, bytes: await file.read(entry, byteOffset, length) };
      }
    },
    tokenizer: () => readTokenizer(path, config),
    hash({ cache = true } = {}) {
      const compute = () =>
        hashTensors([...stored.values()].map(({ file, entry }) => ({ ...entry, source: file.source })));
      return cache ? cachedHash(files.map((file) => file.source.name), compute) : compute();
    },
    files: () => [...names].filter(isCompanion).sort().map((name) => join(path, name)),
    close,
  };
}

async function open(path: string, files: SafetensorsFile[]): Promise<SafetensorsFile> {
  const source = await openFile(path);
  try {
    const file = await parseSafetensors(source);
    files.push(file);
    return file;
  } catch (error) {
    source.close();
    throw error;
  }
}

/** Opens every shard that the index names; the index and the shards must list the same tensors. */
async function openShards(
  folder: string,
  names: Set<string>,
  files: SafetensorsFile[],
): Promise<Map<string, Stored>> {
  const path = join(folder, INDEX);
  const { weight_map: map } = parseJsonObject(await readText(path), path);
  if (!isObject(map)) throw new InputError(`Cannot read ${path}: it has no weight_map`);
  const shards = new Map<string, SafetensorsFile>();
  const stored = new Map<string, Stored>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || /[/\\]/.test(shard)) {
      throw new InputError(`Cannot read ${path}: tensor ${show(name)} is in ${show(shard)}, not a file name`);
    }
    if (!names.has(shard)) {
      throw new InputError(`Missing shard ${shard} in ${folder}: ${INDEX} lists it`, {
        hint: "Download the missing file",
      });
    }
    const file = shards.get(shard) ?? await open(join(folder, shard), files);
    shards.set(shard, file);
    const entry = file.entries.get(name);
    if (entry === undefined) {
      throw new InputError(`Tensor ${show(name)} is not in ${shard} of ${folder}, where ${INDEX} puts it`);
    }
    stored.set(name, { file, entry });
  }
  for (const [shard, file] of shards) {
    for (const name of file.entries.keys()) {
      if (stored.get(name)?.file !== file) {
        throw new InputError(`Tensor ${show(name)} in ${shard} of ${folder} is not in ${INDEX}`);
      }
    }
  }
  return stored;
}

function noWeights(folder: string, names: Set<string>): InputError {
  const pickled = [...names].find((name) => /\.(bin|pt|pth|ckpt|h5)$/.test(name));
  return new InputError(`No model.safetensors and no ${INDEX} in ${folder}`, {
    hint: pickled === undefined
      ? "Download the model's weights into the folder"
      : `Convert ${pickled} to safetensors: from_pretrained(FOLDER).save_pretrained(FOLDER) in transformers`,
  });
}

/** Small files that a model folder needs besides its weights, and its licence. */
function isCompanion(name: string): boolean {
  return COMPANIONS.has(name) || /^(LICENSE|LICENCE|NOTICE|USE_POLICY)(\.|$)/.test(name);
}

const COMPANIONS = new Set([
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "vocab.json",
  "vocab.txt",
  "merges.txt",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.json",
  "chat_template.jinja",
]);

function rowSize({ dtype, shape }: WeightInfo): number {
  return shape.slice(1).reduce((bytes, size) => bytes * size, DTYPE_BYTES[dtype]);
}
