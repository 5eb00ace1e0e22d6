/**
 * Vectors of numbers with JSON metadata, in a safetensors file: what files of statistics are made of.
 */
import type { z } from "npm:zod@4.6.7";
import { InputError } from "../engine/io/errors.ts";
import { parseSafetensors } from "../engine/io/safetensors.ts";
import { openFile } from "../engine/io/source.ts";

/** An open file. Dispose to close. */
export interface NumbersFile extends Disposable {
  /** @throws {InputError} when the entry is missing or does not fit the schema */
  metadata<T>(key: string, schema: z.ZodType<T>): T;
  /** A vector; undefined when there is none of that name. @throws {InputError} when it has another dtype */
  read<A extends Float32Array | Float64Array>(
    name: string,
    type: { new (buffer: ArrayBuffer): A; BYTES_PER_ELEMENT: number },
  ): Promise<A | undefined>;
}

/** Opens a file of the given format. @throws {InputError} when it is something else, or damaged */
export async function openNumbers(path: string, format: string, what: string): Promise<NumbersFile> {
  const source = await openFile(path);
  try {
    const file = await parseSafetensors(source);
    if (file.metadata.format !== format) throw new InputError(`${path} is not ${what}`);
    return {
      metadata(key, schema) {
        try {
          return schema.parse(JSON.parse(file.metadata[key] ?? "null"));
        } catch (cause) {
          throw new InputError(`${path} is not ${what}: its metadata has a bad ${key}`, { cause });
        }
      },
      async read(name, type) {
        const entry = file.entries.get(name);
        if (entry === undefined) return undefined;
        const dtype = type.BYTES_PER_ELEMENT === 4 ? "F32" : "F64";
        if (entry.dtype !== dtype) {
          throw new InputError(`${path} does not fit: its ${name} is ${entry.dtype}, ${dtype} is wanted`, {
            hint: "Make it again with the stats command: fewer bits lose what C⁻¹ amplifies",
          });
        }
        return new type((await file.read(entry)).slice().buffer as ArrayBuffer);
      },
      [Symbol.dispose]: () => source.close(),
    };
  } catch (error) {
    source.close();
    throw error;
  }
}
