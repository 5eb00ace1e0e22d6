/**
 * GGUF files as checkpoints: blocks are dequantised as they are read, and tensors that llama.cpp's
 * converter rearranged are put back into transformers' layout.
 */
import type { Checkpoint } from "./checkpoint.ts";
import { DTYPE_BYTES } from "./dtypes.ts";
import { InputError, show } from "./errors.ts";
import { type GgufFile, type GgufTensor, parseGguf } from "./gguf.ts";
import { describeModel, type GgufModel, type MappedTensor } from "./gguf_model.ts";
import { dequantise, readableTypes, servedDtype } from "./gguf_quants.ts";
import { ggufTokenizer } from "./gguf_tokenizer.ts";
import { cachedHash, hashTensors } from "./hash.ts";
import { openFile } from "./source.ts";
import { checkRows, findWeight, PIECE_BYTES, type WeightInfo, type WeightPiece } from "./weights.ts";

/**
 * Opens a GGUF file; see `openCheckpoint`.
 * @throws InputError
 */
export async function openGguf(path: string): Promise<Checkpoint> {
  const source = await openFile(path);
  try {
    const file = await parseGguf(source);
    return fromGguf(file, await describeModel(file));
  } catch (error) {
    source.close();
    throw error;
  }
}

function fromGguf(file: GgufFile, { config, weights: mapped }: GgufModel): Checkpoint {
  const { source } = file;
  const weights = new Map<string, WeightInfo>();
  const stored = new Map<string, MappedTensor>();
  for (const item of mapped) {
    const { name, shape, tensor } = item;
    const dtype = servedDtype(tensor.type.name);
    if (dtype === undefined) {
      throw new InputError(
        `Cannot read ${source.name}: tensor ${
          show(tensor.name)
        } is ${tensor.type.name}; emend reads ${readableTypes()}`,
        { hint: "Take the model in Q8_0 or F16, or as a Hugging Face folder" },
      );
    }
    weights.set(name, { name, dtype, shape });
    stored.set(name, item);
  }

  /** Rows of a weight, all checks done. */
  async function readRows(name: string, row0: number, rows: number): Promise<Uint8Array> {
    const { tensor, layout } = stored.get(name)!;
    if (layout.kind === "same") return await storedRows(tensor, row0, rows);
    if (layout.kind === "heads") return await headRows(tensor, layout.heads, row0, rows);
    return transposedRows(await storedRows(tensor, 0, tensor.shape[0]), tensor, row0, rows);
  }

  /** Rows of a tensor in its own order, dequantised. */
  async function storedRows(tensor: GgufTensor, row0: number, rows: number): Promise<Uint8Array> {
    const rowBytes = tensor.bytes / (tensor.shape[0] ?? 1);
    if (Number.isInteger(rowBytes)) {
      const bytes = await source.read(tensor.offset + row0 * rowBytes, rows * rowBytes);
      return dequantise(tensor.type.name, bytes);
    }
    // A quantised 1-D tensor: its rows are elements inside blocks.
    const whole = dequantise(tensor.type.name, await source.read(tensor.offset, tensor.bytes));
    return whole.subarray(row0 * 4, (row0 + rows) * 4);
  }

  /**
   * Rows of a q or k projection. Within a head of 2n rows, transformers' row j·n + i (half j) is stored
   * as row 2i + j; whole heads are read and the wanted rows picked.
   */
  async function headRows(
    tensor: GgufTensor,
    heads: number,
    row0: number,
    rows: number,
  ): Promise<Uint8Array> {
    const perHead = tensor.shape[0] / heads;
    const first = Math.floor(row0 / perHead) * perHead;
    const last = Math.ceil((row0 + rows) / perHead) * perHead;
    const bytes = await storedRows(tensor, first, last - first);
    const rowBytes = bytes.length / (last - first);
    const out = new Uint8Array(rows * rowBytes);
    for (let r = 0; r < rows; r++) {
      const inHead = (row0 + r) % perHead;
      const half = inHead < perHead / 2 ? 0 : 1;
      const from = row0 + r - inHead - first + 2 * (inHead - half * perHead / 2) + half;
      out.set(bytes.subarray(from * rowBytes, (from + 1) * rowBytes), r * rowBytes);
    }
    return out;
  }

  return {
    kind: "gguf",
    path: source.name,
    config,
    weights,
    quantised: mapped.some(({ tensor }) => tensor.type.block > 1),
    async rows(name, row0, rows) {
      checkRows(findWeight(weights, name, source.name), row0, rows);
      return rows === 0 ? new Uint8Array() : await readRows(name, row0, rows);
    },
    pieces: (name, maxBytes = PIECE_BYTES) =>
      piecesByRows(findWeight(weights, name, source.name), maxBytes, stored.get(name)!, readRows),
    // deno-lint-ignore require-await
    tokenizer: async () => ggufTokenizer(file),
    hash({ cache = true } = {}) {
      const compute = () =>
        hashTensors(
          [...file.tensors.values()].map((tensor) => ({ ...tensor, dtype: tensor.type.name, source })),
        );
      return cache ? cachedHash([source.name], compute) : compute();
    },
    files: () => [],
    close: () => source.close(),
  };
}

/** Pieces of whole rows where a row fits into `maxBytes`; a transposed weight is read once and then cut. */
async function* piecesByRows(
  { name, shape, dtype }: WeightInfo,
  maxBytes: number,
  { layout }: MappedTensor,
  readRows: (name: string, row0: number, rows: number) => Promise<Uint8Array>,
): AsyncGenerator<WeightPiece> {
  const count = shape[0] ?? 1;
  const rowBytes = shape.slice(1).reduce((bytes, size) => bytes * size, DTYPE_BYTES[dtype]);
  const step = Math.max(4, Math.floor(maxBytes / 4) * 4);
  // Rows in even numbers keep 16-bit pieces at multiples of 4 bytes.
  const perRead = layout.kind === "transposed" ? count : Math.max(2, Math.floor(maxBytes / rowBytes / 2) * 2);
  for (let row = 0; row < count; row += perRead) {
    const bytes = await readRows(name, row, Math.min(perRead, count - row));
    for (let at = 0; at < bytes.length; at += step) {
      yield { byteOffset: row * rowBytes + at, bytes: bytes.subarray(at, at + step) };
    }
  }
}

/** Rows of the transpose of a whole [out, in] matrix. */
function transposedRows(whole: Uint8Array, tensor: GgufTensor, row0: number, rows: number): Uint8Array {
  const [outer, inner] = tensor.shape;
  const size = whole.length / (outer * inner);
  const array = size === 4 ? Uint32Array : Uint16Array;
  // A fresh copy is aligned, whatever the offset in the file was.
  const from = new array(new Uint8Array(whole).buffer);
  const to = new array(rows * outer);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < outer; c++) to[r * outer + c] = from[c * inner + row0 + r];
  }
  return new Uint8Array(to.buffer);
}
