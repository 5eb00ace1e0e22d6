/** The safetensors files of a model folder with everything in them, buffers that are no weights included. */
import { join } from "node:path";
import { DTYPE_BYTES } from "../engine/io/dtypes.ts";
import { parseJsonObject } from "../engine/io/json.ts";
import { parseSafetensors, type SafetensorsFile, type TensorEntry } from "../engine/io/safetensors.ts";
import { openFile, readText } from "../engine/io/source.ts";
import { piecesOf, type WeightPiece } from "../engine/io/weights.ts";

/** The name of the weights' file where there is one. */
export const SINGLE = "model.safetensors";
/** The name of the list of shards. */
export const INDEX = "model.safetensors.index.json";

/** The open files. Dispose to close them. */
export interface BaseFiles extends Disposable {
  files: { name: string; file: SafetensorsFile }[];
  /** Path of the list of shards, where there are shards. */
  index: string[];
}

/** Opens the safetensors files of a folder that `openCheckpoint` accepts. */
export async function openBaseFiles(folder: string): Promise<BaseFiles> {
  const single = await Deno.stat(join(folder, SINGLE)).then(() => true, () => false);
  const index = join(folder, INDEX);
  const names = single ? [SINGLE] : await shardNames(index);
  using stack = new DisposableStack();
  const files: BaseFiles["files"] = [];
  for (const name of names) {
    const source = await openFile(join(folder, name));
    stack.defer(() => source.close());
    files.push({ name, file: await parseSafetensors(source) });
  }
  const open = stack.move();
  return { files, index: single ? [] : [index], [Symbol.dispose]: () => open.dispose() };
}

/** The bytes of a file before its tensors: the length and the header, as they are. */
export async function headerBytes({ source }: SafetensorsFile): Promise<Uint8Array> {
  const prefix = await source.read(0, 8);
  const length = Number(new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true));
  return await source.read(0, 8 + length);
}

/** A stored tensor in pieces. */
export async function* entryPieces(file: SafetensorsFile, entry: TensorEntry): AsyncGenerator<WeightPiece> {
  for (const { byteOffset, length } of piecesOf(entry.bytes)) {
    yield { byteOffset, bytes: await file.read(entry, byteOffset, length) };
  }
}

/** Bytes of a tensor. */
export function byteSize({ dtype, shape }: Pick<TensorEntry, "dtype" | "shape">): number {
  return shape.reduce((bytes, size) => bytes * size, DTYPE_BYTES[dtype]);
}

async function shardNames(index: string): Promise<string[]> {
  const { weight_map: map } = parseJsonObject(await readText(index), index);
  return [...new Set(Object.values(map as Record<string, string>))].sort();
}
