/** Writes small GGUF files for the tests, lies included. */

/** A metadata value with its type number. */
export type Typed = [type: number, value: unknown];

/** A tensor of the table; `data` is appended at the next aligned place unless `offset` is given. */
export interface TensorSpec {
  name: string;
  /** Outermost dimension first. */
  shape: (number | bigint)[];
  type: number;
  data?: Uint8Array;
  offset?: number;
}

export const U32 = 4, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, U64 = 10, I64 = 11;

/** A GGUF file of metadata and tensors. `counts` overrides what the header says there is. */
export function ggufBytes(
  metadata: [key: string, value: Typed][],
  tensors: TensorSpec[] = [],
  options: { version?: number; counts?: [bigint, bigint]; alignment?: number } = {},
): Uint8Array {
  const { version = 3, alignment = 32 } = options;
  const out: number[] = [];
  const u32 = (value: number) => out.push(...new Uint8Array(Uint32Array.of(value).buffer));
  const u64 = (value: bigint) => out.push(...new Uint8Array(BigUint64Array.of(value).buffer));
  const string = (text: string) => {
    const bytes = new TextEncoder().encode(text);
    u64(BigInt(bytes.length));
    out.push(...bytes);
  };
  const value = (type: number, item: unknown): void => {
    if (type === STRING) string(item as string);
    else if (type === BOOL) out.push(Number(item));
    else if (type === U32) u32(item as number);
    else if (type === F32) out.push(...new Uint8Array(Float32Array.of(item as number).buffer));
    else if (type === U64 || type === I64) u64(BigInt.asUintN(64, item as bigint));
    else if (type === ARRAY) {
      const [itemType, items, count] = item as [number, unknown[], bigint?];
      u32(itemType);
      u64(count ?? BigInt(items.length));
      for (const part of items) value(itemType, part);
    } else throw new Error(`No writer for metadata type ${type}`);
  };
  out.push(0x47, 0x47, 0x55, 0x46);
  u32(version);
  const [tensorCount, keyCount] = options.counts ?? [BigInt(tensors.length), BigInt(metadata.length)];
  u64(tensorCount);
  u64(keyCount);
  for (const [key, [type, item]] of metadata) {
    string(key);
    u32(type);
    value(type, item);
  }
  const align = (size: number) => Math.ceil(size / alignment) * alignment;
  const data: number[] = [];
  for (const tensor of tensors) {
    string(tensor.name);
    u32(tensor.shape.length);
    for (const size of tensor.shape.toReversed()) u64(BigInt(size));
    u32(tensor.type);
    u64(BigInt(tensor.offset ?? data.length));
    data.push(...tensor.data ?? []);
    while (data.length < align(data.length)) data.push(0);
  }
  while (out.length < align(out.length)) out.push(0);
  return Uint8Array.from([...out, ...data]);
}
