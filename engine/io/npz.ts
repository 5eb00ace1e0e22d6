/**
 * NumPy's .npz archives, for statistics that other projects cached: a zip (stored or deflated, with or
 * without zip64) of .npy files. Reads arrays of f4, f8 and i8; sizes are checked before they are
 * allocated and checksums afterwards.
 */
import { crc32, inflateRawSync } from "node:zlib";
import { InputError, show } from "./errors.ts";
import { parseNpy } from "./npy.ts";
import type { ByteSource } from "./source.ts";

/** One array in C order; an empty shape is a scalar. */
export interface NpzArray {
  shape: number[];
  data: Float32Array | Float64Array | BigInt64Array;
}

/** An open archive. Names come without their ".npy". */
export interface Npz {
  names: string[];
  /** @throws InputError when there is no such array, or it is of a type that emend does not read */
  read(name: string): Promise<NpzArray>;
}

/** One file of the archive, from the central directory. */
interface Member {
  method: number;
  crc: number;
  packed: number;
  size: number;
  headerOffset: number;
}

/** Deflate cannot do better than this ratio, so a claim above it is a lie (or a bomb). */
const MAX_RATIO = 1032;
/** Statistics of a width of 16384 in f8 are 2 GiB. */
const MAX_ARRAY_BYTES = 4 * 2 ** 30;

/**
 * Reads an archive's directory.
 * @throws InputError when it is not a zip, or a damaged one
 */
export async function openNpz(source: ByteSource): Promise<Npz> {
  const members = await readDirectory(source);
  return {
    names: [...members.keys()],
    async read(name) {
      const member = members.get(name);
      if (member === undefined) {
        throw new InputError(
          `No array ${show(name)} in ${source.name}; it has ${[...members.keys()].join(", ")}`,
        );
      }
      return parseNpy(await unpack(source, name, member), `array ${show(name)} of ${source.name}`);
    },
  };
}

const END_BYTES = 22, MAX_COMMENT = 65535, CENTRAL_BYTES = 46, LOCAL_BYTES = 30;
/** A value of 32 bits that says: look in the zip64 field. */
const IN_ZIP64 = 0xffffffff;

async function readDirectory(source: ByteSource): Promise<Map<string, Member>> {
  const fail = (what: string) => new InputError(`Cannot read ${source.name}: ${what}`);
  const tailStart = Math.max(0, source.size - END_BYTES - MAX_COMMENT);
  const tail = viewOf(await source.read(tailStart, source.size - tailStart));
  let end = tail.byteLength - END_BYTES;
  while (end >= 0 && tail.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw fail("it is not an .npz file (no zip directory)");
  let count = tail.getUint16(end + 10, true);
  let bytes = tail.getUint32(end + 12, true);
  let start = tail.getUint32(end + 16, true);
  if (count === 0xffff || bytes === IN_ZIP64 || start === IN_ZIP64) {
    const locator = end - 20;
    if (locator < 0 || tail.getUint32(locator, true) !== 0x07064b50) {
      throw fail("its zip64 directory is missing");
    }
    const at = Number(tail.getBigUint64(locator + 8, true));
    if (at + 56 > source.size) throw fail("its zip64 directory is out of bounds");
    const record = viewOf(await source.read(at, 56));
    if (record.getUint32(0, true) !== 0x06064b50) throw fail("its zip64 directory is damaged");
    count = Number(record.getBigUint64(32, true));
    bytes = Number(record.getBigUint64(40, true));
    start = Number(record.getBigUint64(48, true));
  }
  if (start + bytes > source.size || count * CENTRAL_BYTES > bytes) {
    throw fail("its zip directory is out of bounds");
  }

  const view = viewOf(await source.read(start, bytes));
  const members = new Map<string, Member>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL_BYTES > bytes || view.getUint32(at, true) !== 0x02014b50) {
      throw fail("its zip directory is damaged");
    }
    const nameBytes = view.getUint16(at + 28, true), extraBytes = view.getUint16(at + 30, true);
    const next = at + CENTRAL_BYTES + nameBytes + extraBytes + view.getUint16(at + 32, true);
    if (next > bytes) throw fail("its zip directory is damaged");
    const file = textOf(view, at + CENTRAL_BYTES, nameBytes);
    const name = file.replace(/\.npy$/, "");
    if (members.has(name)) throw fail(`the array ${show(name)} appears twice`);
    if ((view.getUint16(at + 8, true) & 1) !== 0) throw fail("it is encrypted");
    const member = readMember(view, at, nameBytes, extraBytes);
    const { packed, size, method } = member;
    if (method !== 0 && method !== 8) throw fail(`the array ${show(name)} is compressed by method ${method}`);
    if (
      size > MAX_ARRAY_BYTES || packed > source.size || size > packed * MAX_RATIO ||
      (method === 0 && size !== packed)
    ) {
      throw fail(`the array ${show(name)} claims ${size} bytes from ${packed}`);
    }
    members.set(name, member);
    at = next;
  }
  return members;
}

function readMember(view: DataView, at: number, nameBytes: number, extraBytes: number): Member {
  let packed = view.getUint32(at + 20, true);
  let size = view.getUint32(at + 24, true);
  let headerOffset = view.getUint32(at + 42, true);
  const extraEnd = at + CENTRAL_BYTES + nameBytes + extraBytes;
  for (let e = at + CENTRAL_BYTES + nameBytes; e + 4 <= extraEnd;) {
    const end = Math.min(extraEnd, e + 4 + view.getUint16(e + 2, true));
    if (view.getUint16(e, true) === 1) {
      // Holds, in this order, just those values whose 32-bit field says so.
      let field = e + 4;
      const wide = (value: number) => {
        if (value !== IN_ZIP64 || field + 8 > end) return value;
        field += 8;
        return Number(view.getBigUint64(field - 8, true));
      };
      size = wide(size);
      packed = wide(packed);
      headerOffset = wide(headerOffset);
    }
    e = end;
  }
  return {
    method: view.getUint16(at + 10, true),
    crc: view.getUint32(at + 16, true),
    packed,
    size,
    headerOffset,
  };
}

async function unpack(source: ByteSource, name: string, member: Member): Promise<Uint8Array> {
  const fail = (what: string) =>
    new InputError(`Cannot read ${source.name}: the array ${show(name)} ${what}`);
  const { headerOffset, packed, size, method, crc } = member;
  if (headerOffset + LOCAL_BYTES > source.size) throw fail("is out of bounds");
  const local = viewOf(await source.read(headerOffset, LOCAL_BYTES));
  if (local.getUint32(0, true) !== 0x04034b50) throw fail("has a damaged header");
  // The local name and extra field may differ in length from the directory's.
  const dataStart = headerOffset + LOCAL_BYTES + local.getUint16(26, true) + local.getUint16(28, true);
  if (dataStart + packed > source.size) throw fail("is cut short");
  const stored = await source.read(dataStart, packed);
  let bytes = stored;
  if (method === 8) {
    try {
      bytes = inflateRawSync(stored, { maxOutputLength: Math.max(1, size) });
    } catch {
      throw fail("cannot be inflated");
    }
  }
  if (bytes.length !== size) throw fail(`has ${bytes.length} bytes instead of ${size}`);
  if (crc32(bytes) !== crc) throw fail("does not match its checksum");
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function textOf(view: DataView, at: number, length: number): string {
  return new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at, length));
}
