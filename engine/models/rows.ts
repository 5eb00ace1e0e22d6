/**
 * Rows, not padding: everything token-wise runs on a compact [rows, width] matrix. This file turns sequences
 * (whole ones, or their last part over cached keys) into the index tensors that the ops need.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { AttentionMap, KvStore } from "../ops/attention.ts";
import { type Occurrences, uploadOccurrences } from "../ops/embedding.ts";
import { createTensor, freeTensor, type Tensor } from "../tensor/tensor.ts";
import { fromHost } from "../tensor/transfer.ts";

/** One sequence of a batch of rows. */
export interface Sequence {
  /** All token ids from position 0. */
  readonly ids: readonly number[];
  /** First live position; earlier ones are in the cache, or in the prefix. Default 0. */
  readonly from?: number;
  /** Slot of the first own position (after the shared prefix). Only with a cache. */
  readonly slot?: number;
  /**
   * Positions [0, count) lie in these slots, shared with other sequences. Without a cache slots are rows, and
   * the prefix is the start of another sequence of the same batch: a layer makes all keys and values before
   * attention reads any. Only for forward passes then.
   */
  readonly prefix?: { readonly slot: number; readonly count: number };
  /**
   * How many of its tokens are the prompt, by which things beside the weights decide (see parts.ts); default all.
   * 0: it was decided when the cache was filled.
   */
  readonly prompt?: number;
}

/** Where the prompts of a batch are, for what decides by them. */
export interface PromptRows {
  /**
   * u32 [sequences, 4]: two runs of rows, first and count each, that hold a prompt's tokens in order; the second
   * one may be empty, and both are where only a cache knows the prompt.
   */
  readonly spans: Tensor;
  /** u32 [sequences]: the row of each prompt's last token. */
  readonly last: Tensor;
  /** u32 [rows]: the sequence of each row. */
  readonly sequence: Tensor;
  /** u32 [rows]: 1 before the prompt's last token, 2 at it, 4 after it. */
  readonly place: Tensor;
  readonly count: number;
  /** `whole`: all rows of all prompts are here; `last`: their last ones are; `before`: decided earlier. */
  readonly live: "whole" | "last" | "before";
}

/** The host's view of one row. */
export interface RowPlace {
  readonly sequence: number;
  readonly position: number;
}

/** Index tensors of a batch of rows. */
export interface Rows extends Disposable {
  readonly count: number;
  readonly ids: Tensor;
  readonly positions: Tensor;
  /** Who sees whom in a layer; layers with the same window share a map. */
  map(layer: number): AttentionMap;
  readonly places: readonly RowPlace[];
  /** Which rows mention which id and position: what gradients of embedding tables need. */
  occurrences(): { ids: Occurrences; positions: Occurrences };
  /** Where the prompts are. @throws {GpuError} when some prompts are here and others are not */
  prompts(): PromptRows;
  /** Row of a sequence's position. @throws {GpuError} when that position is not live */
  rowOf(sequence: number, position: number): number;
}

/** A subset of rows that the last block computes to the end: loss rows need no other company there. */
export interface Selection extends Disposable {
  readonly count: number;
  /** u32 [count]: the chosen rows, ascending. */
  readonly index: Tensor;
  readonly positions: Tensor;
  readonly map: AttentionMap;
}

/** Keys and values of all layers `[from, to)` for a number of slots. */
export interface KvCache extends Disposable {
  readonly slots: number;
  readonly stores: readonly (KvStore | undefined)[];
  /** What parts decided by the prompts that filled the cache, by part. Freed with the cache. */
  readonly notes: Map<object, Tensor>;
}

/** Allocates a cache. `width` is kvHeads·headDim. */
export function createCache(
  gpu: Gpu,
  shape: { layers: number; from?: number; slots: number; width: number },
): KvCache {
  const { layers, from = 0, slots, width } = shape;
  const stores = Array.from({ length: layers }, (_, layer) => {
    if (layer < from) return undefined;
    const make = (name: string) =>
      createTensor(gpu, `${name} cache ${layer}`, [slots, width], { owner: "cache" });
    return { k: make("key"), v: make("value") };
  });
  const notes = new Map<object, Tensor>();
  const dispose = () => {
    stores.forEach((s) => s && (freeTensor(gpu, s.k), freeTensor(gpu, s.v)));
    notes.forEach((t) => freeTensor(gpu, t));
  };
  return { slots, stores, notes, [Symbol.dispose]: dispose };
}

/** How to pack. */
export interface PackOptions {
  /** Keys live in a cache at the sequences' slots. */
  cached?: boolean;
  /** Sliding attention window of each layer; a layer without one sees everything. */
  windows?: readonly (number | undefined)[];
  /** Every token sees its whole sequence, as in an encoder. */
  bidirectional?: boolean;
}

/**
 * Packs sequences into rows.
 * @throws {GpuError} for an empty sequence, cached positions without a cache, or a prefix that nobody computes
 */
export function packRows(gpu: Gpu, sequences: readonly Sequence[], options: PackOptions = {}): Rows {
  const { cached = false, windows = [], bidirectional = false } = options;
  const places: RowPlace[] = [];
  const starts: number[] = [];
  const ids: number[] = [], slots: number[] = [];
  sequences.forEach((s, sequence) => {
    const from = s.from ?? 0;
    if (from >= s.ids.length) throw new GpuError(`Sequence ${sequence} has no live token`);
    if (!cached && from !== (s.prefix?.count ?? 0)) throw new GpuError(`Sequence ${sequence} needs a cache`);
    const first = places.length;
    starts.push(first - from);
    for (let t = from; t < s.ids.length; t++) {
      const row = places.length;
      places.push({ sequence, position: t });
      ids.push(s.ids[t]);
      slots.push(cached ? ownSlot(s, t) : row);
    }
  });
  if (!cached) sequences.forEach((s, sequence) => requireLivePrefix(s, sequence, places));
  const n = places.length;
  const tensors: Tensor[] = [];
  const u32 = (label: string, shape: number[], values: number[]) => {
    const t = fromHost(gpu, label, shape, Uint32Array.from(values), { owner: "rows" });
    tensors.push(t);
    return t;
  };
  const slotTensor = u32("slots", [n], slots);
  const ends = sequences.map((s, i) => starts[i] + s.ids.length);
  const makeMap = (window: number): AttentionMap => ({
    queries: u32(
      "queries",
      [n, 4],
      places.flatMap(({ sequence: i, position }) =>
        visible(
          sequences[i],
          bidirectional ? sequences[i].ids.length - 1 : position,
          window,
          cached ? undefined : starts[i],
        )
      ),
    ),
    keys: sharesRows(sequences, cached) ? undefined : u32(
      "keys",
      [n, 2],
      places.flatMap(({ sequence }, row) => [
        bidirectional ? starts[sequence] : row,
        Math.min(ends[sequence], row + window),
      ]),
    ),
    slots: slotTensor,
  });
  const maps = new Map<number, AttentionMap>();
  let mentions: { ids: Occurrences; positions: Occurrences } | undefined;
  let prompts: PromptRows | undefined;
  return {
    count: n,
    ids: u32("ids", [n], ids),
    positions: u32("positions", [n], places.map((p) => p.position)),
    map(layer) {
      const window = windows[layer] ?? Infinity;
      if (!maps.has(window)) maps.set(window, makeMap(window));
      return maps.get(window)!;
    },
    places,
    occurrences() {
      mentions ??= {
        ids: uploadOccurrences(gpu, "ids", ids),
        positions: uploadOccurrences(gpu, "positions", places.map((p) => p.position)),
      };
      return mentions;
    },
    prompts() {
      if (prompts) return prompts;
      const { live, spans, last } = promptsOf(sequences, places, cached ? slots : undefined);
      return prompts = {
        spans: u32("prompts", [sequences.length, 4], spans),
        last: u32("prompt ends", [sequences.length], last),
        sequence: u32("sequences", [n], places.map(({ sequence }) => sequence)),
        place: u32(
          "places",
          [n],
          places.map(({ sequence, position }) =>
            1 << 1 + Math.sign(position - lastOfPrompt(sequences[sequence]))
          ),
        ),
        count: sequences.length,
        live,
      };
    },
    rowOf(sequence, position) {
      const row = starts[sequence] + position;
      const place = places[row];
      if (place?.sequence !== sequence || place.position !== position) {
        throw new GpuError(`Position ${position} of sequence ${sequence} is not a live row`);
      }
      return row;
    },
    [Symbol.dispose]() {
      const { ids, positions } = mentions ?? {};
      const lists = [ids, positions].flatMap((o) => o ? [o.offsets, o.tokens, o.rows] : []);
      [...tensors.splice(0), ...lists].forEach((t) => freeTensor(gpu, t));
    },
  };
}

function lastOfPrompt({ prompt, ids }: Sequence): number {
  return (prompt ?? ids.length) - 1;
}

/** The rows of each sequence's prompt: those it shares and its own. @param slots of the rows, with a cache */
function promptsOf(
  sequences: readonly Sequence[],
  places: readonly RowPlace[],
  slots: readonly number[] | undefined,
): { live: PromptRows["live"]; spans: number[]; last: number[] } {
  const bySlot = slots && new Map(slots.map((slot, row) => [slot, row]));
  const firsts = new Map<number, number>();
  places.forEach(({ sequence }, row) => firsts.has(sequence) || firsts.set(sequence, row));
  const found = sequences.map((s, i) => {
    const { from = 0, prefix } = s;
    const end = lastOfPrompt(s) + 1;
    const sharedRow = prefix && (bySlot ? bySlot.get(prefix.slot) : prefix.slot);
    const shared = sharedRow === undefined ? 0 : Math.min(prefix!.count, end);
    const own = Math.max(0, end - from);
    const spans = shared
      ? [sharedRow!, shared, own ? firsts.get(i)! : 0, own]
      : [own ? firsts.get(i)! : 0, own, 0, 0];
    const here = own > 0 || (shared > 0 && shared === end);
    const last = own > 0 ? firsts.get(i)! + own - 1 : shared > 0 ? sharedRow! + shared - 1 : 0;
    return { spans, last, here, whole: here && shared + own === end };
  });
  const here = found.filter((f) => f.here).length;
  if (here > 0 && here < found.length) {
    throw new GpuError("Some prompts of a batch are in it and others are not");
  }
  const live = here === 0 ? "before" : found.every(({ whole }) => whole) ? "whole" : "last";
  return { live, spans: found.flatMap(({ spans }) => spans), last: found.map(({ last }) => last) };
}

/** Chooses rows for the last block. They must ascend. */
export function selectRows(
  gpu: Gpu,
  rows: Rows,
  chosen: readonly number[],
  sequences: readonly Sequence[],
  options: PackOptions = {},
): Selection {
  const { cached = false, windows = [] } = options;
  const window = windows.at(-1) ?? Infinity;
  if (chosen.some((row, i) => i > 0 && row <= chosen[i - 1])) throw new GpuError("Selected rows must ascend");
  const places = chosen.map((row) => rows.places[row]);
  const queries = places.flatMap(({ sequence, position }, i) =>
    visible(sequences[sequence], position, window, cached ? undefined : chosen[i] - position)
  );
  const u32 = (label: string, shape: number[], values: readonly number[]) =>
    fromHost(gpu, label, shape, Uint32Array.from(values), { owner: "rows" });
  const tensors = {
    index: u32("selected rows", [chosen.length], chosen),
    positions: u32("selected positions", [chosen.length], places.map((p) => p.position)),
    queries: u32("selected queries", [chosen.length, 4], queries),
    ...sharesRows(sequences, cached)
      ? {}
      : { keys: u32("selected keys", [rows.count, 2], seeing(places, rows.places, window)) },
  };
  return {
    count: chosen.length,
    index: tensors.index,
    positions: tensors.positions,
    map: { queries: tensors.queries, keys: tensors.keys, slots: rows.map(0).slots },
    [Symbol.dispose]: () => Object.values(tensors).forEach((t) => freeTensor(gpu, t)),
  };
}

/** Which selected rows see each key: those of its sequence at or after it, within the window. */
function seeing(selected: readonly RowPlace[], keys: readonly RowPlace[], window: number): number[] {
  return keys.flatMap(({ sequence, position }) => {
    const sees = (p: RowPlace) =>
      p.sequence === sequence && p.position >= position && p.position < position + window;
    const first = selected.findIndex(sees);
    if (first < 0) return [0, 0];
    let end = first;
    while (end < selected.length && sees(selected[end])) end++;
    return [first, end];
  });
}

/** Rows that see a key are then no range, and there is no backward pass. */
function sharesRows(sequences: readonly Sequence[], cached: boolean): boolean {
  return !cached && sequences.some((s) => s.prefix);
}

function requireLivePrefix({ prefix }: Sequence, sequence: number, places: readonly RowPlace[]): void {
  if (!prefix) return;
  const first = places[prefix.slot], last = places[prefix.slot + prefix.count - 1];
  if (first?.position === 0 && last?.position === prefix.count - 1 && first.sequence === last.sequence) {
    return;
  }
  throw new GpuError(`The prefix of sequence ${sequence} is not the start of a live sequence`);
}

function ownSlot(s: Sequence, position: number): number {
  return (s.slot ?? 0) + position - (s.prefix?.count ?? 0);
}

/** The two slot ranges that position t sees: shared prefix and own run, clipped to the window. */
function visible(s: Sequence, t: number, window: number, rowBase?: number): number[] {
  const low = Math.max(0, t - window + 1);
  const shared = s.prefix?.count ?? 0;
  const sharedCount = Math.max(0, shared - low);
  const ownLow = Math.max(low, shared);
  const own = rowBase === undefined ? ownSlot(s, ownLow) : rowBase + ownLow;
  return [sharedCount ? s.prefix!.slot + low : 0, sharedCount, own, t - ownLow + 1];
}
