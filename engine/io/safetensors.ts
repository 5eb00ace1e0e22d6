/**
 * The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes
 * end to end. Follows https://huggingface.co/docs/safetensors; as strict as the reference reader, plus
 * repeated keys. Nothing is allocated from a length that was not first checked against the file's size.
 */
import { DTYPE_BYTES, isStoredDtype, type StoredDtype } from "./dtypes.ts";
import { InputError, show } from "./errors.ts";
import { isObject, parseJsonObject, refuseDuplicateKeys } from "./json.ts";
import type { ByteSource } from "./source.ts";

export type { StoredDtype } from "./dtypes.ts";
export { type TensorOut, writeSafetensors } from "./safetensors_write.ts";

/** One tensor of a file. `offset` counts from the start of the file; `bytes` is its whole length. */
export interface TensorEntry {
  name: string;
  dtype: StoredDtype;
  shape: number[];
  offset: number;
  bytes: number;
}

/** A parsed file: its tensors in the order of their bytes, and its free-form metadata. */
export interface SafetensorsFile {
  source: ByteSource;
  entries: Map<string, TensorEntry>;
  metadata: Record<string, string>;
  /** `length` bytes of a tensor from byte `offset` within it (default: all of it). */
  read(entry: TensorEntry, offset?: number, length?: number): Promise<Uint8Array>;
}

/** The format's own cap; a longer header is refused before it is read. */
const MAX_HEADER_BYTES = 100_000_000;

/**
 * Reads and checks a header. The tensors must cover the data exactly: in bounds, sizes equal to
 * shape × dtype, no overlap, no gap, nothing after the last one.
 * @throws InputError naming the file, the tensor and the two values that disagree
 */
export async function parseSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  const where = `the safetensors header of ${source.name}`;
  if (source.size < 8) {
    throw new InputError(
      `Cannot read ${source.name}: ${source.size} bytes is too short for a safetensors file`,
    );
  }
  const prefix = await source.read(0, 8);
  const headerBytes = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  const room = source.size - 8;
  if (headerBytes > BigInt(room)) {
    throw new InputError(
      `Cannot read ${source.name}: it claims a header of ${headerBytes} bytes but only ${room} follow`,
      { hint: "The file is truncated or is not a safetensors file" },
    );
  }
  if (headerBytes > BigInt(MAX_HEADER_BYTES)) {
    throw new InputError(
      `Cannot read ${source.name}: its header has ${headerBytes} bytes; ${MAX_HEADER_BYTES} are allowed`,
    );
  }
  const length = Number(headerBytes);
  const text = decodeUtf8(await source.read(8, length), where);
  if (!text.startsWith("{")) throw new InputError(`Cannot read ${where}: it does not start with "{"`);
  const header = parseJsonObject(text, where);
  refuseDuplicateKeys(text, where);

  const metadata = readMetadata(header.__metadata__, where);
  const tensors = Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, value]) => readEntry(name, value, 8 + length, where));
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  checkCover(tensors, 8 + length, source);

  const entries = new Map(tensors.map((entry) => [entry.name, entry]));
  return {
    source,
    entries,
    metadata,
    // `async` so that a bad range arrives as a rejection.
    async read(entry, offset = 0, count = entry.bytes - offset) {
      if (offset < 0 || count < 0 || offset + count > entry.bytes) {
        const range = `bytes ${offset} to ${offset + count}`;
        throw new InputError(`Cannot read ${range} of tensor ${show(entry.name)}: it has ${entry.bytes}`);
      }
      return await source.read(entry.offset + offset, count);
    },
  };
}

function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new InputError(`Cannot read ${where}: it is not UTF-8`, { cause: error });
  }
}

function readMetadata(value: unknown, where: string): Record<string, string> {
  if (value === undefined) return {};
  if (!isObject(value)) throw new InputError(`Cannot read ${where}: __metadata__ is not an object`);
  for (const [key, item] of Object.entries(value)) {
    if (typeof item !== "string") {
      throw new InputError(`Cannot read ${where}: __metadata__ value ${show(key)} is not a string`);
    }
  }
  return value as Record<string, string>;
}

function readEntry(name: string, value: unknown, dataStart: number, where: string): TensorEntry {
  const fail = (what: string) => new InputError(`Cannot read ${where}: tensor ${show(name)} ${what}`);
  if (!isObject(value)) throw fail("is not an object");
  const { dtype, shape, data_offsets: span } = value;
  if (typeof dtype !== "string" || !isStoredDtype(dtype)) throw fail(`has unknown dtype ${show(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw fail(`has a bad shape ${show(shape)}`);
  if (!Array.isArray(span) || span.length !== 2 || !span.every(isSize) || span[0] > span[1]) {
    throw fail(`has bad data_offsets ${show(span)}`);
  }
  const [begin, end] = span as [number, number];
  const expected = byteCount(dtype, shape);
  if (expected === undefined) throw fail(`has a shape ${show(shape)} too large for any file`);
  if (end - begin !== expected) {
    throw fail(`is ${dtype} ${show(shape)}, ${expected} bytes, but its data_offsets span ${end - begin}`);
  }
  return { name, dtype, shape: shape as number[], offset: dataStart + begin, bytes: end - begin };
}

/** Bytes of a tensor, or undefined when an intermediate product is beyond exact integers. */
export function byteCount(dtype: StoredDtype, shape: readonly number[]): number | undefined {
  let bytes: number = DTYPE_BYTES[dtype];
  for (const size of shape) bytes *= size;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** `tensors` in the order of their offsets must tile the data from its start to the end of the file. */
function checkCover(tensors: TensorEntry[], dataStart: number, source: ByteSource): void {
  let end = dataStart;
  let previous = "";
  for (const { name, offset, bytes } of tensors) {
    if (offset < end) {
      throw new InputError(`Cannot read ${source.name}: tensors ${show(previous)} and ${show(name)} overlap`);
    }
    if (offset > end) {
      throw new InputError(
        `Cannot read ${source.name}: ${offset - end} bytes before tensor ${show(name)} belong to no tensor`,
      );
    }
    end = offset + bytes;
    previous = name;
  }
  if (end > source.size) {
    throw new InputError(
      `Cannot read ${source.name}: tensor ${
        show(previous)
      } ends at byte ${end} but the file has ${source.size}`,
      { hint: "The file is truncated; download or copy it again" },
    );
  }
  if (end < source.size) {
    throw new InputError(
      `Cannot read ${source.name}: ${source.size - end} bytes after the last tensor belong to none`,
    );
  }
}
