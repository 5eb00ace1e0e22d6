/**
 * The GGUF container: metadata and a table of tensors, as in ggml's docs/gguf.md, versions 2 and 3,
 * little-endian. A strict parser of our own: every count and length is checked against the bytes that
 * are left before anything is allocated from it.
 */
import { InputError, show } from "./errors.ts";
import { GGML_TYPES, type GgmlType } from "./gguf_quants.ts";
import type { ByteSource } from "./source.ts";

/** A metadata value. Arrays of numbers are typed arrays; 64-bit integers beyond 2^53 are bigint. */
export type GgufValue =
  | number
  | bigint
  | boolean
  | string
  | string[]
  | boolean[]
  | GgufValue[]
  | GgufNumbers;

/** A metadata array of numbers in its stored type. */
export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** One tensor. `shape` is outermost first (ggml stores the reverse); `offset` is from the file's start. */
export interface GgufTensor {
  name: string;
  type: GgmlType;
  shape: number[];
  offset: number;
  bytes: number;
}

/** A parsed file. */
export interface GgufFile {
  source: ByteSource;
  version: number;
  metadata: Map<string, GgufValue>;
  tensors: Map<string, GgufTensor>;
}

/** Headers with a vocabulary of 256k tokens are about 15 MB; this bounds what a lying one can cost. */
const MAX_HEADER_BYTES = 64 * 2 ** 20;
const FIRST_READ_BYTES = 2 ** 20;

/**
 * Parses a file's header.
 * @throws InputError naming the file and what is wrong in it
 */
export async function parseGguf(source: ByteSource): Promise<GgufFile> {
  // The header's length is written nowhere: parse what is read so far, and read more when it runs out.
  for (let length = FIRST_READ_BYTES;;) {
    length = Math.min(length, source.size);
    const bytes = await source.read(0, length);
    try {
      return parseHeader(source, bytes);
    } catch (error) {
      if (!(error instanceof NeedBytes)) throw error;
      if (length === source.size) throw new InputError(`Cannot read ${source.name}: its header is cut short`);
      if (error.end > MAX_HEADER_BYTES) {
        throw new InputError(
          `Cannot read ${source.name}: its header is longer than ${MAX_HEADER_BYTES} bytes`,
        );
      }
      length = Math.max(length * 2, error.end);
    }
  }
}

/** The header goes on past the bytes read so far, at least to `end`. Never leaves this file. */
class NeedBytes extends Error {
  constructor(readonly end: number) {
    super();
  }
}

/** A cursor over the header: numbers and strings in order, each checked against what the file has left. */
interface Cursor {
  fail(what: string): InputError;
  position(): number;
  /** Claims `count` items of at least `itemBytes` each; throws unless the file could hold them. */
  claim(count: number, itemBytes: number, what: string): void;
  take(bytes: number): number;
  view: DataView;
  u32(): number;
  /** A count or offset: an unsigned 64-bit integer that must be exact as a number. */
  size(what: string): number;
  string(what: string): string;
}

function makeCursor(source: ByteSource, bytes: Uint8Array): Cursor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  let at = 0;
  const cursor: Cursor = {
    view,
    fail: (what) => new InputError(`Cannot read ${source.name}: ${what}`),
    position: () => at,
    claim(count, itemBytes, what) {
      if (count * itemBytes > source.size - at) {
        throw cursor.fail(`${what} claims ${count} items but only ${source.size - at} bytes are left`);
      }
      if (count * itemBytes > MAX_HEADER_BYTES) throw cursor.fail(`${what} claims ${count} items, too many`);
    },
    take(length) {
      const start = at;
      if (start + length > source.size) throw cursor.fail("its header is cut short");
      if (start + length > bytes.length) throw new NeedBytes(start + length);
      at += length;
      return start;
    },
    u32: () => view.getUint32(cursor.take(4), true),
    size(what) {
      const value = view.getBigUint64(cursor.take(8), true);
      if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw cursor.fail(`${what} is ${value}, which is absurd`);
      return Number(value);
    },
    string(what) {
      const length = cursor.size(`the length of ${what}`);
      cursor.claim(length, 1, what);
      const start = cursor.take(length);
      return utf8.decode(bytes.subarray(start, start + length));
    },
  };
  return cursor;
}

function parseHeader(source: ByteSource, bytes: Uint8Array): GgufFile {
  const cursor = makeCursor(source, bytes);
  if (source.size < 24 || cursor.u32() !== 0x46554747) throw cursor.fail("it is not a GGUF file");
  const version = cursor.u32();
  if (version !== 2 && version !== 3) {
    const bigEndian = version !== 0 && (version & 0xffff) === 0;
    throw cursor.fail(
      bigEndian ? "it is big-endian" : `GGUF version ${version} is not supported (2 and 3 are)`,
    );
  }
  const tensorCount = cursor.size("the tensor count");
  const keyCount = cursor.size("the metadata count");
  // The least that entries take. A tensor: name length, rank, type, offset. A key: name length, type, value.
  cursor.claim(tensorCount, 8 + 4 + 4 + 8, "the tensor table");
  cursor.claim(keyCount, 8 + 4 + 1, "the metadata");

  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    const key = cursor.string("a metadata key");
    if (metadata.has(key)) throw cursor.fail(`the metadata key ${show(key)} appears twice`);
    metadata.set(key, readValue(cursor, cursor.u32(), key, 0));
  }
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 1 || alignment > 2 ** 20 || !Number.isInteger(alignment)) {
    throw cursor.fail(`general.alignment is ${show(String(alignment))}`);
  }

  const tensors = new Map<string, GgufTensor>();
  for (let i = 0; i < tensorCount; i++) {
    const tensor = readTensor(cursor);
    if (tensors.has(tensor.name)) throw cursor.fail(`tensor ${show(tensor.name)} appears twice`);
    tensors.set(tensor.name, tensor);
  }
  const dataStart = Math.ceil(cursor.position() / alignment) * alignment;
  placeTensors([...tensors.values()], dataStart, alignment, source, cursor);
  return { source, version, metadata, tensors };
}

type NumberReader = (view: DataView, at: number) => number | bigint;
type NumberArray = new (buffer: ArrayBuffer) => GgufNumbers;

/** Metadata types of fixed size by number: bytes, how to read one, and the array that holds many. */
const NUMBER_TYPES: Record<number, [bytes: number, read: NumberReader, array: NumberArray]> = {
  0: [1, (v, at) => v.getUint8(at), Uint8Array],
  1: [1, (v, at) => v.getInt8(at), Int8Array],
  2: [2, (v, at) => v.getUint16(at, true), Uint16Array],
  3: [2, (v, at) => v.getInt16(at, true), Int16Array],
  4: [4, (v, at) => v.getUint32(at, true), Uint32Array],
  5: [4, (v, at) => v.getInt32(at, true), Int32Array],
  6: [4, (v, at) => v.getFloat32(at, true), Float32Array],
  10: [8, (v, at) => v.getBigUint64(at, true), BigUint64Array],
  11: [8, (v, at) => v.getBigInt64(at, true), BigInt64Array],
  12: [8, (v, at) => v.getFloat64(at, true), Float64Array],
};
const BOOL = 7, STRING = 8, ARRAY = 9;
const MAX_NESTING = 4;

function readValue(cursor: Cursor, kind: number, key: string, depth: number): GgufValue {
  if (kind === STRING) return cursor.string(`the metadata value ${show(key)}`);
  if (kind === BOOL) return readBool(cursor, key);
  if (kind === ARRAY) return readArray(cursor, key, depth);
  const numeric = NUMBER_TYPES[kind];
  if (numeric === undefined) throw cursor.fail(`the metadata value ${show(key)} has unknown type ${kind}`);
  const [bytes, read] = numeric;
  const value = read(cursor.view, cursor.take(bytes));
  if (typeof value === "number") return value;
  const exact = Number(value);
  return Number.isSafeInteger(exact) ? exact : value;
}

function readBool(cursor: Cursor, key: string): boolean {
  const value = cursor.view.getUint8(cursor.take(1));
  if (value > 1) throw cursor.fail(`the metadata value ${show(key)} is ${value}, not a boolean`);
  return value === 1;
}

function readArray(cursor: Cursor, key: string, depth: number): GgufValue {
  if (depth === MAX_NESTING) throw cursor.fail(`the metadata value ${show(key)} is nested too deeply`);
  const kind = cursor.u32();
  const what = `the metadata array ${show(key)}`;
  const count = cursor.size(`the length of ${what}`);
  const numeric = NUMBER_TYPES[kind];
  if (numeric !== undefined) {
    const [bytes, , array] = numeric;
    cursor.claim(count, bytes, what);
    const start = cursor.take(count * bytes) + cursor.view.byteOffset;
    return new array(cursor.view.buffer.slice(start, start + count * bytes) as ArrayBuffer);
  }
  // The least an item takes: a string its length field, an array its type and length.
  cursor.claim(count, kind === STRING ? 8 : kind === ARRAY ? 12 : 1, what);
  if (kind === STRING) return Array.from({ length: count }, () => cursor.string(what));
  if (kind === BOOL) return Array.from({ length: count }, () => readBool(cursor, key));
  if (kind === ARRAY) return Array.from({ length: count }, () => readArray(cursor, key, depth + 1));
  throw cursor.fail(`${what} has unknown item type ${kind}`);
}

/** One entry of the tensor table; `offset` is relative to the data until `placeTensors` has run. */
function readTensor(cursor: Cursor): GgufTensor {
  const name = cursor.string("a tensor's name");
  const rank = cursor.u32();
  if (rank > 4) throw cursor.fail(`tensor ${show(name)} has ${rank} dimensions; ggml has at most 4`);
  const shape = Array.from({ length: rank }, () => cursor.size(`a dimension of ${show(name)}`)).reverse();
  const typeNumber = cursor.u32();
  const type = GGML_TYPES.get(typeNumber);
  if (type === undefined) throw cursor.fail(`tensor ${show(name)} has unknown type ${typeNumber}`);
  const offset = cursor.size(`the offset of ${show(name)}`);
  const elements = shape.reduce((product, size) => product * size, 1);
  const bytes = (elements / type.block) * type.bytes;
  if (!(elements > 0 && elements <= Number.MAX_SAFE_INTEGER && bytes <= Number.MAX_SAFE_INTEGER)) {
    throw cursor.fail(`tensor ${show(name)} has an impossible shape [${shape}] for ${type.name}`);
  }
  if ((shape.at(-1) ?? 1) % type.block !== 0) {
    throw cursor.fail(
      `tensor ${show(name)} [${shape}] does not divide into blocks of ${type.block} (${type.name})`,
    );
  }
  return { name, type, shape, offset, bytes };
}

/** Makes offsets absolute; tensors must be aligned, inside the file, and must not overlap. */
function placeTensors(
  tensors: GgufTensor[],
  dataStart: number,
  alignment: number,
  source: ByteSource,
  cursor: Cursor,
): void {
  let end = dataStart;
  let previous = "";
  for (const tensor of tensors.toSorted((a, b) => a.offset - b.offset)) {
    const name = show(tensor.name);
    if (tensor.offset % alignment !== 0) {
      throw cursor.fail(`tensor ${name} is at offset ${tensor.offset}, not a multiple of ${alignment}`);
    }
    tensor.offset += dataStart;
    if (tensor.offset < end) throw cursor.fail(`tensors ${previous} and ${name} overlap`);
    end = tensor.offset + tensor.bytes;
    if (end > source.size) {
      throw new InputError(
        `Cannot read ${source.name}: tensor ${name} ends at byte ${end} but the file has ${source.size}`,
        { hint: "The file is truncated; download or copy it again" },
      );
    }
    previous = name;
  }
}
