/**
 * Causal tracing (Meng et al. 2022, "Locating and Editing Factual Associations in GPT", section 2): how much of a
 * prediction that noise on the subject has destroyed comes back when one state of the clean run is restored.
 *
 *   corrupted  P* = mean over draws of P(answer), with ε ~ N(0, ν²) on the embeddings of the subject
 *   restored   P*(t, l), the same noise, with the state at token t and layer l as in the clean run
 *   total effect P − P*, indirect effect P*(t, l) − P*
 *
 * The authors run the whole model on clean and corrupted rows for every cell. Here all cells of a prompt run
 * together, and only what a cell changes is computed: positions from t on and layers above l, over the corrupted
 * runs' keys and values; the head reads last positions only. This is exact by causality (guide section 14).
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { type KvCache, packRows, type Rows, selectRows, type Sequence } from "../../engine/models/rows.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import { gatherRows, scatterRows } from "../../engine/ops/rows.ts";
import { vocabScores } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../engine/tensor/transfer.ts";
import { type Cell, cellsOf, defaultWindow, groupCells, type TraceKind } from "./cells.ts";
import { legacyNormals } from "./noise.ts";
import { readRuns, restoredName, type Runs, type TracePrompt } from "./runs.ts";

/** How to trace. */
export interface GridOptions {
  kinds: readonly TraceKind[];
  /** ν, the standard deviation of the noise; see `subjectDeviation`. */
  noise: number;
  /** Layers of a window of modules; by default those of `defaultWindow`: from 20 layers on 10, the authors'. */
  window?: number;
  /** Draws of noise. Default 10, the authors'. */
  samples?: number;
  /** Seed of the draws. Default 1, the authors'. */
  seed?: number;
  /** Rows of a plan at most; default what fits the memory set aside for it. */
  maxRows?: number;
  /** Done and total in some unit of work. */
  onProgress?: (done: number, total: number) => void;
}

/** The trace of one prompt. */
export interface Grids {
  /** P(answer) of the clean run. */
  clean: number;
  /** P*, the mean over draws. */
  corrupted: number;
  /** P*(t, l) by kind, token and layer. */
  scores: Partial<Record<TraceKind, number[][]>>;
}

/** Memory for the rows of one plan. */
const WORK_BYTES = 256 << 20;
/** Rows of one plan at most: more are no faster, and progress would be told seldom. */
const MAX_ROWS = 1024;

/**
 * Traces one prompt. Waits for the GPU once for the clean and corrupted runs and once a plan.
 * @throws {GpuError} when a probability is not finite, naming the cell
 */
export async function traceGrids(model: Model, prompt: TracePrompt, options: GridOptions): Promise<Grids> {
  const { layers, width } = model.dims;
  const { kinds, samples = 10, seed = 1, maxRows = rowsAtOnce(model), onProgress } = options;
  const { window = defaultWindow(layers) } = options;
  const { ids, subject: [first, end] } = prompt;
  const tokens = ids.length;
  const cells = kinds.flatMap((kind) => cellsOf(kind, { tokens, first, layers, window }));
  const draws = legacyNormals(seed, samples * (end - first) * width);
  using runs = await readRuns(model, prompt, Float32Array.from(draws, (x) => options.noise * x), cells);

  const corrupted = mean(runs.corrupted);
  const scores: Grids["scores"] = {};
  for (const kind of kinds) {
    scores[kind] = Array.from({ length: tokens }, () => new Array<number>(layers).fill(corrupted));
  }
  const rowsOf = ({ token }: Cell) => samples * (tokens - token);
  // Blocks that a cell's rows pass, the head among them.
  const work = (cell: Cell) => rowsOf(cell) * (layers - cell.from + 1);
  const total = cells.reduce((sum, cell) => sum + work(cell), 0);
  let done = 0;
  for (const group of groupCells(cells, rowsOf, maxRows)) {
    const found = await runCells(model, prompt, runs, group);
    group.forEach((cell, i) => {
      const p = mean(found.subarray(i * samples, (i + 1) * samples).map(Math.exp));
      const { kind, token } = cell;
      if (!Number.isFinite(p)) {
        throw new GpuError(
          `P(answer) is not finite with ${kind} restored at token ${token}, layer ${cell.layers[0]}`,
        );
      }
      for (const layer of cell.layers) scores[kind]![token][layer] = p;
      done += work(cell);
    });
    onProgress?.(done, total);
  }
  return { clean: runs.clean, corrupted, scores };
}

function rowsAtOnce({ gpu, dims }: Model): number {
  const { width, inner, heads, kvHeads, headDim } = dims;
  const floats = 6 * width + 3 * inner + (2 * heads + 6 * kvHeads) * headDim;
  const widest = Math.max(inner, 3 * width, heads * headDim);
  const binding = gpu.limits.maxStorageBufferBindingSize / 4 / widest;
  return Math.floor(Math.min(MAX_ROWS, WORK_BYTES / 4 / floats, binding));
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}

/**
 * log P(answer) of every cell with every draw, in order. Rows are those of the first cell's first draw from its
 * token on, then its second draw's, and so on; cells join at their layers.
 */
async function runCells(
  model: Model,
  { ids, answer }: TracePrompt,
  runs: Runs,
  cells: readonly Cell[],
): Promise<Float32Array> {
  const { gpu, dims: { layers, kvHeads, headDim, windows } } = model;
  const T = ids.length, samples = runs.count - 1, slots = runs.count * T;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, (t) => freeTensor(gpu, t));
  const u32 = (label: string, values: readonly number[]) =>
    own(fromHost(gpu, label, [values.length], Uint32Array.from(values)));
  const range = (start: number, count: number) => Array.from({ length: count }, (_, i) => start + i);

  const parts = partsOf(cells, T, samples);
  const total = parts.at(-1)!.row + T - parts.at(-1)!.cell.token;
  const sequences: Sequence[] = parts.map(({ cell: { token }, run, row }) => ({
    ids,
    from: token,
    slot: slots + row,
    ...token > 0 && { prefix: { slot: run * T, count: token } },
  }));
  // One store for all layers: a layer's keys and values of the runs come in before its block.
  const makeStore = (label: string) => own(createTensor(gpu, label, [slots + total, kvHeads * headDim]));
  const store = { k: makeStore("keys"), v: makeStore("values") };
  const cache: KvCache = {
    slots: slots + total,
    stores: range(0, layers).map(() => store),
    notes: new Map(),
    [Symbol.dispose]() {},
  };
  const ofRuns = u32("slots of the runs", range(0, slots));

  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const packing = { cached: true, windows };
  const last = layers - 1;
  let h: Tensor | undefined, rows: Rows | undefined;
  let live = 0;
  for (let layer = cells[0].from; layer < layers; layer++) {
    const joining = parts.slice(live).filter(({ cell }) => cell.from === layer);
    if (joining.length) {
      h = joinParts(ctx, u32, runs, layer, h, { parts, joining }, T);
      live += joining.length;
      rows = owned.use(packRows(gpu, sequences.slice(0, live), packing));
    }
    for (const name of ["k", "v"] as const) {
      scatterRows(ctx, runs.cache.stores[layer]![name], ofRuns, store[name]);
    }
    const now = parts.slice(0, live);
    // Of the last block only the last positions leave.
    const ends = now.map(({ cell, row }) => row + T - 1 - cell.token);
    const select = layer === last
      ? owned.use(selectRows(gpu, rows!, ends, sequences.slice(0, live), packing))
      : undefined;
    const hooks = new Map<Site, Hook>();
    for (const module of ["attn", "mlp"] as const) {
      const holds = ({ cell: { hold, token } }: Part) =>
        hold?.module === module && layer < hold.to && (!select || token === T - 1);
      const held = now.filter(holds);
      if (held.length === 0) continue;
      const inLast = now.flatMap((part, i) => holds(part) ? [i] : []);
      const places = u32("held rows", select ? inLast : held.map(({ row }) => row));
      const sources = u32(
        "sources of held rows",
        held.map(({ cell, run }) => {
          return (cell.hold!.run === "clean" ? 0 : run * T) + cell.token;
        }),
      );
      hooks.set(`layer.${layer}.${module}.out`, (ctx, value) => {
        scatterRows(ctx, gatherRows(ctx, runs.outputs[module][layer], sources), places, value);
        return value;
      });
    }
    h = forward(ctx, model, rows!, { from: layer, to: layer + 1, input: h, cache, hooks, select });
  }
  const late = parts.slice(live);
  if (late.length) h = joinParts(ctx, u32, runs, layers, h, { parts, joining: late }, T);
  const n = parts.length;
  const logProbs = own(createTensor(gpu, "log-probabilities", [n]));
  const best = own(createTensor(gpu, "likeliest tokens", [n], { dtype: "u32" }));
  const asked = { rows: u32("rows", range(0, n)), targets: u32("answers", range(0, n).map(() => answer)) };
  vocabScores(ctx, finalNorm(ctx, model, h!), weight(model, "head"), asked, { logProbs, best });
  using plan = ctx.r.finish(`trace ${cells.length} cells`);
  plan.run();
  return await readF32(gpu, logProbs);
}

/** A cell with one draw of noise. */
interface Part {
  cell: Cell;
  run: number;
  /** Its first row, that of the cell's token. */
  row: number;
}

function partsOf(cells: readonly Cell[], tokens: number, samples: number): Part[] {
  let row = 0;
  return cells.flatMap((cell) =>
    Array.from({ length: samples }, (_, i) => {
      const part = { cell, run: 1 + i, row };
      row += tokens - cell.token;
      return part;
    })
  );
}

type Upload = (label: string, values: readonly number[]) => Tensor;

/** The stream entering a layer with the rows of parts that begin there. */
function joinParts(
  ctx: Ctx,
  u32: Upload,
  runs: Runs,
  layer: number,
  h: Tensor | undefined,
  { parts, joining }: { parts: readonly Part[]; joining: readonly Part[] },
  tokens: number,
): Tensor {
  const fresh = joining.filter(({ cell }) => typeof cell.start === "string");
  const all = fresh.length ? join(ctx, h, joinStream(ctx, u32, runs, layer, fresh, tokens), u32) : h!;
  const shared = joining.slice(fresh.length);
  if (shared.length === 0) return all;
  const rows = shared.flatMap(({ cell, run }) => {
    const from = parts.find((part) => part.cell === cell.start && part.run === run)!;
    return Array.from({ length: tokens - cell.token }, (_, i) => from.row + i);
  });
  return join(ctx, all, gatherRows(ctx, all, u32("rows of other cells", rows)), u32);
}

/** The stream entering a layer of parts that begin there: the restored row, then the corrupted run's. */
function joinStream(
  ctx: Ctx,
  u32: Upload,
  runs: Runs,
  layer: number,
  parts: readonly Part[],
  tokens: number,
): Tensor {
  const sources = parts.flatMap(({ cell: { token, start }, run }) => [
    (start === "clean" ? 0 : run * tokens) + token,
    ...Array.from({ length: tokens - token - 1 }, (_, i) => run * tokens + token + 1 + i),
  ]);
  const stream = gatherRows(ctx, runs.streams[layer], u32("sources of joining rows", sources));
  const base = parts[0].row;
  for (const module of ["attn", "mlp"] as const) {
    const restored = parts.filter(({ cell }) => cell.start === module);
    if (restored.length === 0) continue;
    const from = runs.restored.get(restoredName(module, layer - 1))!;
    const values = gatherRows(
      ctx,
      from,
      u32("sources", restored.map(({ cell, run }) => run * tokens + cell.token)),
    );
    scatterRows(ctx, values, u32("restored rows", restored.map(({ row }) => row - base)), stream);
  }
  return stream;
}

/** Rows one below the other. */
function join(
  ctx: Ctx,
  above: Tensor | undefined,
  below: Tensor,
  u32: Upload,
): Tensor {
  if (!above) return below;
  const [n, width] = above.shape, m = below.shape[0];
  const all = temp(ctx, "stream", [n + m, width]);
  scatterRows(ctx, above, u32("earlier rows", Array.from({ length: n }, (_, i) => i)), all);
  scatterRows(ctx, below, u32("joining rows", Array.from({ length: m }, (_, i) => n + i)), all);
  return all;
}
