/** Writes NumPy's .npz archives, stored and not deflated, for tests of their import. */
import { crc32 } from "node:zlib";

/** NumPy's name of the element type, shape, elements. */
export type NpyArray = [string, number[], ArrayBufferView];

/** An archive of arrays by name. */
export function npz(arrays: Record<string, NpyArray>): Uint8Array {
  const local: Uint8Array[] = [], central: Uint8Array[] = [];
  let offset = 0;
  for (const [key, array] of Object.entries(arrays)) {
    const name = new TextEncoder().encode(`${key}.npy`);
    const content = npy(array);
    const sizes = [crc32(content), content.length, content.length];
    const head = record(0x04034b50, 30, { 14: sizes[0], 18: sizes[1], 22: sizes[2] }, { 26: name.length });
    const entry = record(0x02014b50, 46, { 16: sizes[0], 20: sizes[1], 24: sizes[2], 42: offset }, {
      28: name.length,
    });
    local.push(head, name, content);
    central.push(entry, name);
    offset += head.length + name.length + content.length;
  }
  const size = central.reduce((sum, part) => sum + part.length, 0);
  const count = Object.keys(arrays).length;
  const end = record(0x06054b50, 22, { 12: size, 16: offset }, { 8: count, 10: count });
  return joined([...local, ...central, end]);
}

/** A zip record: its signature, and fields of four and of two bytes by their place. */
function record(
  signature: number,
  size: number,
  wide: Record<number, number>,
  short: Record<number, number>,
) {
  const view = new DataView(new ArrayBuffer(size));
  view.setUint32(0, signature, true);
  Object.entries(wide).forEach(([at, value]) => view.setUint32(Number(at), value, true));
  Object.entries(short).forEach(([at, value]) => view.setUint16(Number(at), value, true));
  return new Uint8Array(view.buffer);
}

function npy([descr, shape, data]: NpyArray): Uint8Array {
  const sizes = shape.map((size) => `${size},`).join(" ");
  const header = new TextEncoder().encode(
    `{'descr': '${descr}', 'fortran_order': False, 'shape': (${sizes}), }\n`,
  );
  const magic = [0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, header.length & 255, header.length >> 8];
  return joined([
    Uint8Array.from(magic),
    header,
    new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  ]);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
