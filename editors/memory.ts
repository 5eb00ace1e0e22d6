/**
 * What a method remembers of a sequence of edits beside the weights: MEMIT_seq and AlphaEdit the keys of earlier
 * edits (guide sections 5.2 and 8), UltraEdit its running statistics (section 9). Each edit adds one part; parts
 * are plain numbers, so a run can store them and go on after a kill with the same bits.
 */
import { InputError } from "../engine/io/errors.ts";
import { parseSafetensors, writeSafetensors } from "../engine/io/safetensors.ts";
import { openFile } from "../engine/io/source.ts";

/** Matrices by name, row-major. */
export type MemoryPart = ReadonlyMap<string, { rows: number; values: Float32Array }>;

/** The memory of one sequence of edits on one model. */
export class EditMemory {
  readonly #parts: MemoryPart[] = [];
  readonly #derived = new Map<string, unknown>();

  /** One part an edit, in order. */
  get parts(): readonly MemoryPart[] {
    return this.#parts;
  }

  /** Remembers what an edit that is on the model asks to remember. */
  add(part: MemoryPart): void {
    this.#parts.push(part);
  }

  /** What a method computes from the parts, made once and grown by the method itself as parts come. */
  derived<T>(name: string, make: () => T): T {
    if (!this.#derived.has(name)) this.#derived.set(name, make());
    return this.#derived.get(name) as T;
  }
}

const FORMAT = "emend-edit-memory";

/** Writes one part, whole or not at all. */
export async function writeMemory(path: string, part: MemoryPart): Promise<void> {
  const tensors = [...part].map(([name, { rows, values }]) => ({
    name,
    dtype: "F32" as const,
    shape: [rows, values.length / rows],
    data: () => [new Uint8Array(values.buffer, values.byteOffset, values.byteLength)],
  }));
  await writeSafetensors(path, tensors, { format: FORMAT, format_version: "1" });
}

/** Reads what {@link writeMemory} wrote. @throws {InputError} when it is something else or damaged */
export async function readMemory(path: string): Promise<MemoryPart> {
  const source = await openFile(path);
  using _closing = { [Symbol.dispose]: () => source.close() };
  const file = await parseSafetensors(source);
  if (file.metadata.format !== FORMAT) throw new InputError(`${path} is not a part of an edit memory`);
  const part = new Map<string, { rows: number; values: Float32Array }>();
  for (const entry of file.entries.values()) {
    const { name, dtype, shape } = entry;
    if (dtype !== "F32" || shape.length !== 2) {
      throw new InputError(`${path} has a tensor "${name}" that is no matrix of f32`);
    }
    const values = new Float32Array((await file.read(entry)).slice().buffer);
    part.set(name, { rows: shape[0], values });
  }
  return part;
}
