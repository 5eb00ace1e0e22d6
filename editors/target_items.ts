/** The sequences of a batch of target optimisations (see targets.ts), and the rows that have a loss. */
import type { Rows, Sequence } from "../engine/models/rows.ts";
import type { TargetOptions, TargetPart, TargetRequest } from "./targets.ts";

/** Loss terms of a step: NLL, KL, weight decay. */
export const PARTS = 3;

/** A sequence of the batch: a context's prompt with the target, or a KL prompt. */
export interface TargetItem extends Sequence {
  edit: number;
  kind: "nll" | "kl";
  /** Position of the subject's last token: the first live one. */
  lookup: number;
  slot: number;
  ids: number[];
  /** Ids of the wanted continuation; empty in KL prompts. */
  target: readonly number[];
}

/** A row of the loss. */
interface LossRow {
  row: number;
  edit: number;
  target: number;
  weight: number;
  kl: boolean;
}

/** A request's own prompts, then those of the others that share its δ. */
export function partsOf({ prompts, target, also = [] }: TargetRequest): TargetPart[] {
  return [{ prompts, target }, ...also];
}

/** All NLL sequences edit by edit, then all KL sequences; slots one after another. */
export function itemsOf(requests: readonly TargetRequest[]): TargetItem[] {
  let slot = 0;
  const item = (
    edit: number,
    kind: TargetItem["kind"],
    ids: number[],
    lookup: number,
    target: readonly number[] = [],
  ): TargetItem => {
    const made = { edit, kind, ids, lookup, slot, target };
    slot += ids.length;
    return made;
  };
  return [
    ...requests.flatMap((request, edit) =>
      partsOf(request).flatMap(({ prompts, target }) =>
        prompts.map((p) => item(edit, "nll", [...p.ids, ...target.slice(0, -1)], p.subjectLast, target))
      )
    ),
    ...requests.map(({ kl }, edit) => item(edit, "kl", kl.ids.slice(0, kl.subjectLast + 1), kl.subjectLast)),
  ];
}

/** Loss rows in ascending order, all NLL rows before all KL rows. */
export function lossRowsOf(
  requests: readonly TargetRequest[],
  items: readonly TargetItem[],
  live: Rows,
  { kl_factor, nll_loss_factor = 1 }: TargetOptions,
): LossRow[] {
  const prompts = requests.map((r) => partsOf(r).reduce((n, part) => n + part.prompts.length, 0));
  return items.flatMap(({ kind, edit, lookup, ids, target }, i): LossRow[] => {
    if (kind === "kl") {
      return [{ row: live.rowOf(i, lookup), edit, target: 0, weight: kl_factor, kl: true }];
    }
    const first = ids.length - target.length;
    const weight = nll_loss_factor / (target.length * prompts[edit]);
    return target.map((id, t) => ({ row: live.rowOf(i, first + t), edit, target: id, weight, kl: false }));
  });
}
