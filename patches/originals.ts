/**
 * What `patch apply` keeps so that a folder can go back without its base: the bytes that the changed tensors
 * had, and the headers of the base's safetensors files. One safetensors file; the folder's other tensors are
 * the base's already.
 */
import type { Checkpoint, WeightPiece } from "../engine/io/checkpoint.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { parseSafetensors, type TensorOut, writeSafetensors } from "../engine/io/safetensors.ts";
import { openFile } from "../engine/io/source.ts";
import { entryPieces, headerBytes, openBaseFiles } from "./base_files.ts";

const FORMAT = "emend-originals";
const FORMAT_VERSION = "1";
/** Tensors of this name and a file's name hold the bytes before that file's tensors. */
const HEADER = "emend:header:";

/** The open file. Dispose to close it. */
export interface Originals extends Disposable {
  /** Names of the tensors that it has. */
  tensors: ReadonlySet<string>;
  /** By name of the base's file; none when the base was a GGUF file. */
  headers: ReadonlyMap<string, Uint8Array>;
  pieces(name: string): AsyncGenerator<WeightPiece>;
}

/** The headers of a folder's safetensors files; a GGUF file has none. */
export async function baseHeaders({ kind, path }: Checkpoint): Promise<Map<string, Uint8Array>> {
  const headers = new Map<string, Uint8Array>();
  if (kind === "gguf") return headers;
  using base = await openBaseFiles(path);
  for (const { name, file } of base.files) headers.set(name, await headerBytes(file));
  return headers;
}

/** Keeps tensors of a checkpoint, and headers. */
export async function writeOriginals(
  path: string,
  checkpoint: Checkpoint,
  names: readonly string[],
  headers: ReadonlyMap<string, Uint8Array>,
): Promise<void> {
  const kept = [...headers].map(([name, bytes]): TensorOut => (
    { name: HEADER + name, dtype: "U8", shape: [bytes.length], data: () => [bytes] }
  ));
  const tensors = names.map((name): TensorOut => ({
    ...checkpoint.weights.get(name)!,
    async *data() {
      for await (const { bytes } of checkpoint.pieces(name)) yield bytes;
    },
  }));
  await writeSafetensors(path, [...tensors, ...kept], { format: FORMAT, format_version: FORMAT_VERSION });
}

/**
 * Opens what was kept, for a folder whose tensors must include these.
 * @throws {InputError} when the file is not what {@link writeOriginals} wrote for such a folder
 */
export async function openOriginals(path: string, edited: Checkpoint): Promise<Originals> {
  const source = await openFile(path);
  try {
    const file = await parseSafetensors(source);
    const { format, format_version: version } = file.metadata;
    if (format !== FORMAT || version !== FORMAT_VERSION) {
      throw new InputError(`${path} does not hold the originals of changed tensors`);
    }
    const tensors = new Set<string>(), headers = new Map<string, Uint8Array>();
    for (const entry of file.entries.values()) {
      const { name, dtype, shape } = entry;
      if (name.startsWith(HEADER)) {
        headers.set(name.slice(HEADER.length), await file.read(entry));
        continue;
      }
      const info = edited.weights.get(name);
      if (info === undefined || info.dtype !== dtype || info.shape.join() !== shape.join()) {
        const is = info && `${info.dtype} [${info.shape.join(", ")}]`;
        throw new InputError(
          `${path} has ${show(name)} as ${dtype} [${shape.join(", ")}]; ${edited.path} has ${is ?? "none"}`,
        );
      }
      tensors.add(name);
    }
    return {
      tensors,
      headers,
      pieces: (name) => entryPieces(file, file.entries.get(name)!),
      [Symbol.dispose]: () => source.close(),
    };
  } catch (error) {
    source.close();
    throw error;
  }
}
