/** Additions in a patch file: what stands beside the weights; FORMAT.md, "Additions". */
import { z } from "npm:zod@4.6.7";
import { InputError, show } from "../engine/io/errors.ts";
import {
  type Addition,
  ADDITION_KINDS,
  type EntryInfo,
  type EntryNumbers,
  type Setting,
} from "../engine/models/additions/addition.ts";

const setting: z.ZodType<Setting> = z.lazy(() =>
  z.union([
    z.string(),
    z.number(),
    z.boolean(),
    z.null(),
    z.array(setting),
    z.record(z.string(), setting),
  ])
);

/** One addition in the metadata. */
export const additionSchema = z.object({
  kind: z.enum(ADDITION_KINDS),
  role: z.string().min(1),
  settings: z.record(z.string(), setting),
  entries: z.array(z.record(z.string(), setting)).min(1),
  tensors: z.array(z.string().min(1)).min(1),
});

export type AdditionRecord = z.infer<typeof additionSchema>;

/** The metadata of an addition. */
export function recordOfAddition({ kind, role, settings, entries, tensors }: Addition): AdditionRecord {
  return {
    kind,
    role,
    settings: settings as AdditionRecord["settings"],
    entries: entries as AdditionRecord["entries"],
    tensors: [...tensors.keys()],
  };
}

/** The file's name of an addition's tensor, additions counted from 0. */
export function additionTensor(index: number, name: string): string {
  return `additions.${index}.${name}`;
}

/**
 * The addition of a record.
 * @param take reads a tensor of the file
 * @throws {InputError} when a tensor has not one row an entry
 */
export async function additionOf(
  { kind, role, settings, entries, tensors }: AdditionRecord,
  index: number,
  path: string,
  take: (name: string) => Promise<EntryNumbers>,
): Promise<Addition> {
  const numbers = new Map<string, EntryNumbers>();
  for (const name of tensors) {
    const read = await take(additionTensor(index, name));
    if (read.shape[0] !== entries.length) {
      throw new InputError(
        `Cannot read ${path}: ${show(additionTensor(index, name))} has ${read.shape[0] ?? 1} rows for ` +
          `${entries.length} entries`,
      );
    }
    numbers.set(name, read);
  }
  return { kind, role, settings, entries: entries as EntryInfo[], tensors: numbers };
}
