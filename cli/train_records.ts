/** Which records of its files `emend train` leaves out, as its flags say. */
import { InputError } from "../engine/io/errors.ts";
import type { RecordOptions } from "../training/records.ts";
import { withheld } from "../training/without.ts";

interface Flags {
  dataset: string;
  skipIncomplete?: boolean;
  without: string[];
}

/** @throws {InputError} for a dataset that cannot be read, or `--without` beside atlas' own facts */
export async function recordOptions({ dataset, skipIncomplete, without }: Flags): Promise<RecordOptions> {
  if (without.length && dataset === "atlas") {
    throw new InputError("--without is for files", {
      hint: "Of atlas' own facts those that its evaluation sets edit are left out in any case",
    });
  }
  return {
    skipIncomplete,
    without: without.length ? await withheld(without) : undefined,
    note: (text) => console.error(`note: ${text}`),
  };
}
