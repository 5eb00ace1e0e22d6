/** What no measurement of ten edits can tell of a method: what it needs beforehand, and how it takes many edits. */

/** Columns of the survey's table (Yao et al. 2023, table 2) that are facts of a method. */
export interface Traits {
  /** What must be made of the model before the first edit. */
  before: "nothing" | "statistics" | "editor" | "memory";
  /** Edits of one call are made together, in one optimisation or one solve; else one after another. */
  batch: boolean;
}

const closed: Traits = { before: "statistics", batch: true };
const plain: Traits = { before: "nothing", batch: true };
const trained: Traits = { before: "editor", batch: true };

/** By method; the rest are `plain`. */
const TRAITS: Record<string, Traits> = {
  "r-rome": { ...closed, batch: false },
  rome: { ...closed, batch: false },
  "p-rome": { ...closed, batch: false },
  memit: closed,
  "memit-seq": closed,
  pmet: closed,
  emmet: closed,
  "emmet-released": closed,
  alphaedit: closed,
  kn: { ...plain, batch: false },
  "kn-easyedit": { ...plain, batch: false },
  mend: trained,
  "ke-efk": { ...trained, batch: false },
  ke: { ...trained, batch: false },
  malmen: trained,
  serac: trained,
  "serac-easyedit": trained,
  ike: { before: "memory", batch: true },
  "t-patcher": { before: "memory", batch: false },
};

/** The traits of a method by its name. */
export function traitsOf(method: string): Traits {
  return TRAITS[method] ?? plain;
}
