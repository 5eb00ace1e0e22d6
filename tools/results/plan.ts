/** The runs behind the tables of docs/results.md: `eval` with these options, each in a folder of its own. */

/** Which table: edits one by one, batches of growing size, or a long sequence. */
export type TableName = "single" | "batches" | "sequences";

/** One run of `eval`. */
export interface PlannedRun {
  /** Its folder below the results folder. */
  folder: string;
  method: string;
  batch: number;
  sequential: boolean;
  limit?: number;
  /** Hyper-parameters other than the recipe's, as `--set` takes them. */
  set?: string;
}

/** Methods that edit one fact at a time; those that only exist in a batch or a sequence are left out. */
export const SINGLE = [
  "rome",
  "r-rome",
  "p-rome",
  "memit",
  "pmet",
  "emmet",
  "alphaedit",
  "ft",
  "ft-l-historic",
  "ft-l",
  "ft-m",
  "ft-full",
  "lora",
  "adalora",
  "kn",
  "kn-easyedit",
];
export const BATCHED = ["memit", "emmet", "pmet", "alphaedit"];
export const SEQUENTIAL = ["rome", "r-rome", "memit", "memit-seq", "alphaedit", "ft-l", "lora"];

/** In sequences ROME gets MEMIT's six contexts, not 21: the same work an edit for all that optimise targets. */
const SIX_CONTEXTS = "context_template_length_params=[[10,5]]";

/** Records that a batch size is measured on: fifty of the small ones, one whole batch of the large ones. */
const BATCHES = [{ batch: 1, limit: 50 }, { batch: 10, limit: 50 }, { batch: 50, limit: 50 }, {
  batch: 100,
  limit: 100,
}, { batch: 500, limit: 500 }];

/** The runs of a table, in the order of its rows. */
export function plannedRuns(
  table: TableName,
  { methods, limit, batches }: { methods?: string[]; limit?: number; batches?: number[] },
): PlannedRun[] {
  const chosen = (all: string[]) => methods ?? all;
  if (table === "single") {
    return chosen(SINGLE).map((method) => ({
      folder: `single-${method}`,
      method,
      batch: 1,
      sequential: false,
      limit,
    }));
  }
  if (table === "batches") {
    const sizes = BATCHES.filter(({ batch }) => !batches || batches.includes(batch));
    return sizes.flatMap((size) =>
      chosen(BATCHED).map((method) => ({
        folder: `batch-${size.batch}-${method}`,
        method,
        sequential: false,
        ...size,
      }))
    );
  }
  return (batches ?? [10, 1]).flatMap((batch) =>
    chosen(SEQUENTIAL).map((method) => ({
      folder: `sequence-${batch}-${method}`,
      method,
      batch,
      sequential: true,
      limit: limit ?? 500,
      set: method.endsWith("rome") ? SIX_CONTEXTS : undefined,
    }))
  );
}
