/**
 * Writing safetensors files: tensors stream through one piece at a time, in the order given, and the
 * file appears under its name only when it is whole.
 */
import { writeStreamAtomic } from "./atomic.ts";
import { DTYPE_BYTES, type StoredDtype } from "./dtypes.ts";

/** A tensor to write. `data()` is called once and must yield exactly shape × dtype bytes. */
export interface TensorOut {
  name: string;
  dtype: StoredDtype;
  shape: number[];
  data(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/**
 * Streams tensors to a file, atomically (see `writeFileAtomic`). Transformers wants the metadata
 * `{ format: "pt" }` in a model's files.
 * @throws Error when a name repeats or a tensor's data is not as long as its shape says: a caller's bug
 */
export async function writeSafetensors(
  path: string,
  tensors: TensorOut[],
  metadata: Record<string, string> = {},
): Promise<void> {
  const header = encodeHeader(tensors, metadata);
  await writeStreamAtomic(path, async (write) => {
    await write(header);
    for (const tensor of tensors) {
      const expected = bytesOf(tensor);
      let written = 0;
      for await (const piece of tensor.data()) {
        written += piece.length;
        if (written > expected) break;
        await write(piece);
      }
      if (written !== expected) {
        throw new Error(`Tensor ${tensor.name} [${tensor.shape}] needs ${expected} bytes but got ${written}`);
      }
    }
  });
}

/** The length field and the JSON header, padded with spaces so that the data starts at a multiple of 8. */
function encodeHeader(tensors: TensorOut[], metadata: Record<string, string>): Uint8Array {
  const entries: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) entries.push(["__metadata__", metadata]);
  const names = new Set<string>(["__metadata__"]);
  let offset = 0;
  for (const tensor of tensors) {
    if (names.has(tensor.name)) throw new Error(`Cannot write two tensors named ${tensor.name}`);
    names.add(tensor.name);
    const end = offset + bytesOf(tensor);
    const { dtype, shape } = tensor;
    entries.push([tensor.name, { dtype, shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const padded = Math.ceil(json.length / 8) * 8;
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return header;
}

function bytesOf(tensor: TensorOut): number {
  return tensor.shape.reduce((bytes, size) => bytes * size, DTYPE_BYTES[tensor.dtype]);
}
