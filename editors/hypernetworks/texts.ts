/**
 * Token ids of what hyper-networks are trained and asked with, packed into rows: which rows are scored, against
 * which token, and which of several edited models a row belongs to.
 */
import type { Gpu } from "../../engine/gpu/device.ts";
import type { Model } from "../../engine/models/model.ts";
import { packRows, type Rows, type Selection, selectRows } from "../../engine/models/rows.ts";
import { freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost } from "../../engine/tensor/transfer.ts";

/** A prompt and how it goes on, as token ids. */
export interface Continuation {
  prompt: readonly number[];
  target: readonly number[];
}

/** One edit to train with (guide section 0.1). */
export interface EditExample {
  /** The prompt and new answer that define the edit. */
  edit: Continuation;
  /** The same fact in other words: what the edit is judged by. */
  outer: Continuation;
  /** Something else, which must stay. */
  loc: Continuation;
  /** For editors that read the edit as a text: the answer before it. */
  before?: readonly number[];
}

/** A text with its scored positions. */
export interface Scored {
  ids: readonly number[];
  prompt: number;
  at: { position: number; target: number }[];
  /** The edited model that it is read by. */
  group: number;
}

/** The answer of a continuation is scored, teacher-forced. */
export function answerOf({ prompt, target }: Continuation, group: number): Scored {
  return {
    ids: [...prompt, ...target.slice(0, -1)],
    prompt: prompt.length,
    at: target.map((id, t) => ({ position: prompt.length - 1 + t, target: id })),
    group,
  };
}

/** Every position of a continuation is compared with the base model's, prompt included (guide section 0.2). */
export function wholeOf({ prompt, target }: Continuation, group: number): Scored {
  const ids = [...prompt, ...target];
  return {
    ids,
    prompt: prompt.length,
    // The row of the last token predicts what follows the text: no token is wanted there.
    at: ids.map((_, position) => ({ position, target: ids[position + 1] ?? 0 })),
    group,
  };
}

/** Texts as rows. */
export interface Packed extends Disposable {
  readonly rows: Rows;
  /** The scored rows. */
  readonly select: Selection;
  /** Of each scored row: its text, its position there, and the token wanted. */
  readonly scored: readonly { text: number; position: number; target: number }[];
  /** u32 [rows] and [scored rows]: the edited model of each. */
  readonly groups: Tensor;
  readonly scoredGroups: Tensor;
  /** The same on the host. */
  readonly groupLists: { rows: readonly number[]; scored: readonly number[] };
}

/** Packs texts. */
export function packScored(model: Model, texts: readonly Scored[]): Packed {
  const { gpu, dims: { windows } } = model;
  using owned = new DisposableStack();
  const sequences = texts.map(({ ids, prompt }) => ({ ids, prompt }));
  const rows = owned.use(packRows(gpu, sequences, { windows }));
  const scored = texts.flatMap(({ at }, text) => at.map((one) => ({ text, ...one })));
  const chosen = texts.flatMap(({ at }, i) => at.map(({ position }) => rows.rowOf(i, position)));
  const select = owned.use(selectRows(gpu, rows, chosen, sequences, { windows }));
  const groupLists = {
    rows: rows.places.map(({ sequence }) => texts[sequence].group),
    scored: scored.map(({ text }) => texts[text].group),
  };
  const groups = u32(gpu, owned, "row groups", groupLists.rows);
  const scoredGroups = u32(gpu, owned, "scored groups", groupLists.scored);
  const kept = owned.move();
  return { rows, select, scored, groups, scoredGroups, groupLists, [Symbol.dispose]: () => kept.dispose() };
}

/** Uploads whole numbers that go with a stack. */
export function u32(gpu: Gpu, owned: DisposableStack, label: string, values: readonly number[]): Tensor {
  return owned.adopt(
    fromHost(gpu, label, [values.length], Uint32Array.from(values), { owner: "rows" }),
    (t) => freeTensor(gpu, t),
  );
}

/** Uploads numbers that go with a stack. */
export function f32(gpu: Gpu, owned: DisposableStack, label: string, values: readonly number[]): Tensor {
  return owned.adopt(
    fromHost(gpu, label, [values.length], Float32Array.from(values), { owner: "rows" }),
    (t) => freeTensor(gpu, t),
  );
}

/** Weights by which the scored rows [first, end) make a token mean in each group; `over` divides all of them. */
export function meanWeights(
  scored: Packed["scored"],
  groupOf: (text: number) => number,
  { first = 0, end = scored.length, over = 1 }: { first?: number; end?: number; over?: number } = {},
): number[] {
  const groups = scored.slice(first, end).map(({ text }) => groupOf(text));
  const counts = new Map<number, number>();
  for (const g of groups) counts.set(g, (counts.get(g) ?? 0) + 1);
  return groups.map((g) => 1 / counts.get(g)! / over);
}
