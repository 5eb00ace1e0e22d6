/**
 * The cells of a causal trace (Meng et al. 2022, section 2.1 and appendix B; guide section 12.1): which state is
 * restored at which token and layer, from which layer on that changes anything, and what is held there.
 *
 * | kind | what is restored at (token, layer) |
 * | --- | --- |
 * | `state` | the residual stream leaving the layer |
 * | `mlp` | outputs of the MLPs of a window of layers |
 * | `attn` | outputs of the attentions of a window of layers |
 * | `state-no-mlp` | as `state`, with all MLPs at the token held to what they say in the corrupted run |
 * | `state-no-attn` | the same with all attentions held |
 */

/** Kinds of traces; the last two are the severed ones. */
export const TRACE_KINDS = ["state", "mlp", "attn", "state-no-mlp", "state-no-attn"] as const;

export type TraceKind = typeof TRACE_KINDS[number];

/** A module whose output is restored or held. */
export type Module = "mlp" | "attn";

/** One or several cells of a grid that need the same run. */
export interface Cell {
  kind: TraceKind;
  token: number;
  /** Columns of the grid that this run fills: windows that the model's ends clip may be equal. */
  layers: number[];
  /**
   * First layer whose input differs from the corrupted run's: rows from the token on are computed from here. At
   * the number of layers only the head is left.
   */
  from: number;
  /**
   * Where the token's row at `from` comes from: the clean run, or the corrupted run with one module restored; or
   * all rows from another cell, which has the same windows up to there.
   */
  start: "clean" | Module | Cell;
  /** Module outputs at the token that are put in place in layers [from, to). */
  hold?: { module: Module; run: "clean" | "corrupted"; to: number };
}

/**
 * Layers of a window where none is asked for: the ten that the authors restore in all of their models, which have
 * 24 layers and more, and at most half of a shallower one's. Ten of six layers would be all of them, or nearly.
 */
export function defaultWindow(layers: number): number {
  return Math.min(10, Math.max(1, Math.floor(layers / 2)));
}

/** Layers [first, end) of the window plotted at a layer; as the authors' code has it, one more below it. */
export function windowAt(layer: number, window: number, layers: number): [first: number, end: number] {
  return [Math.max(0, layer - Math.floor(window / 2)), Math.min(layers, layer + Math.ceil(window / 2))];
}

/**
 * Cells of a kind that can differ from the corrupted run. Those before the subject cannot, nor those that touch
 * nothing but the last layer's stream at another than the last token.
 * @param shape tokens T of the prompt, first token of the subject, layers L of the model
 */
export function cellsOf(
  kind: TraceKind,
  shape: { tokens: number; first: number; layers: number; window: number },
): Cell[] {
  const { tokens, first, layers, window } = shape;
  const out: Cell[] = [];
  for (let token = first; token < tokens; token++) {
    const known = new Map<string, Cell>();
    let widest: Cell | undefined;
    for (let layer = 0; layer < layers; layer++) {
      const made = cellAt(kind, token, layer, layers, window);
      const key = `${made.from}:${made.hold?.to}`;
      const same = known.get(key);
      if (same) same.layers.push(layer);
      else if (made.from < layers || token === tokens - 1) {
        known.set(key, made);
        out.push(made);
        if (made.from === 1) widest = made;
      }
    }
    if (kind === "mlp" || kind === "attn") known.forEach((cell) => shareStart(cell, widest!));
  }
  return out;
}

/** Windows that begin at layer 0 are one run up to where they end. */
function shareStart(cell: Cell, widest: Cell): void {
  if (cell.from > 1 || cell === widest) return;
  cell.from = cell.hold!.to;
  cell.start = widest;
  cell.hold = undefined;
}

function cellAt(kind: TraceKind, token: number, layer: number, layers: number, window: number): Cell {
  const base = { kind, token, layers: [layer] };
  if (kind === "mlp" || kind === "attn") {
    const [first, to] = windowAt(layer, window, layers);
    return { ...base, from: first + 1, start: kind, hold: { module: kind, run: "clean", to } };
  }
  const state: Cell = { ...base, from: layer + 1, start: "clean" };
  if (kind === "state") return state;
  const module = kind === "state-no-mlp" ? "mlp" : "attn";
  return { ...state, hold: { module, run: "corrupted", to: layers } };
}

/**
 * Cuts cells into groups that run together, in the order in which they join, and of at most so many rows unless
 * a cell with those that begin from it has more.
 */
export function groupCells(
  cells: readonly Cell[],
  rowsOf: (cell: Cell) => number,
  maxRows: number,
): Cell[][] {
  const families = [...Map.groupBy(cells, (cell) => typeof cell.start === "object" ? cell.start : cell)];
  const groups: Cell[][] = [];
  let rows = Infinity;
  for (const [, family] of families.sort(([a], [b]) => a.from - b.from)) {
    const more = family.reduce((sum, cell) => sum + rowsOf(cell), 0);
    if (rows + more > maxRows) {
      groups.push([]);
      rows = 0;
    }
    groups.at(-1)!.push(...family);
    rows += more;
  }
  // At one layer, those that begin from another cell come last.
  const late = ({ start }: Cell) => +(typeof start === "object");
  return groups.map((group) => group.sort((a, b) => a.from - b.from || late(a) - late(b)));
}
