/** The runs behind the tables of docs/results.md: `eval` with these options, each in a folder of its own. */

/**
 * Which table: edits one by one, batches of growing size, or a long sequence; "memory" is the first with the methods
 * that leave the weights alone or learn to edit, and their ablations.
 */
export type TableName = "single" | "memory" | "batches" | "sequences";

/** One run of `eval`. */
export interface PlannedRun {
  /** Its folder below the results folder. */
  folder: string;
  method: string;
  /** What the table calls it. */
  label: string;
  batch: number;
  sequential: boolean;
  limit?: number;
  /** Hyper-parameters other than the recipe's, as `--set` takes them. */
  set: string[];
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
  "ultraedit",
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
/** SERAC where nothing was trained: a sentence encoder's cosine, and the base with the edit in front. */
const SERAC = ["scope=encoder", "counterfactual=base"];

/** Variants of one method are told apart by what is set. */
const MEMORY: { method: string; label?: string; set?: (dataset: string, limit: number) => string[] }[] = [
  // Demonstrations are the records that are not tested.
  { method: "ike", set: (dataset, limit) => [`corpus=${dataset}`, `corpus_skip=${limit}`] },
  { method: "ice" },
  { method: "serac", set: () => SERAC },
  { method: "serac", label: "serac, oracle scope", set: () => ["scope=gold", SERAC[1]] },
  { method: "serac", label: "serac, always in scope", set: () => ["scope=always", SERAC[1]] },
  { method: "grace" },
  { method: "wise" },
  { method: "melo" },
  { method: "t-patcher" },
  { method: "calinet" },
  { method: "mend" },
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
  { methods, limit, batches, dataset }: {
    methods?: string[];
    limit?: number;
    batches?: number[];
    dataset: string;
  },
): PlannedRun[] {
  const chosen = (all: string[]) => (methods ?? all).map((method) => ({ method, label: method, set: [] }));
  if (table === "single") {
    return chosen(SINGLE).map((run) => ({
      ...run,
      folder: `single-${run.method}`,
      batch: 1,
      sequential: false,
      limit,
    }));
  }
  if (table === "memory") {
    return MEMORY.filter(({ method }) => !methods || methods.includes(method))
      .map(({ method, label = method, set }) => ({
        folder: `single-${label.replaceAll(/\W+/g, "-")}`,
        method,
        label,
        batch: 1,
        sequential: false,
        limit,
        set: set?.(dataset, limit ?? 0) ?? [],
      }));
  }
  if (table === "batches") {
    const sizes = BATCHES.filter(({ batch }) => !batches || batches.includes(batch));
    return sizes.flatMap((size) =>
      chosen(BATCHED).map((run) => ({
        ...run,
        folder: `batch-${size.batch}-${run.method}`,
        sequential: false,
        ...size,
      }))
    );
  }
  return (batches ?? [10, 1]).flatMap((batch) =>
    chosen(SEQUENTIAL).map((run) => ({
      ...run,
      folder: `sequence-${batch}-${run.method}`,
      batch,
      sequential: true,
      limit: limit ?? 500,
      set: run.method.endsWith("rome") ? [SIX_CONTEXTS] : [],
    }))
  );
}
