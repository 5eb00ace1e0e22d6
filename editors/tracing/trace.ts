/** Traces of many facts: those that the model knows, with noise of a size that fits its embeddings. */
import { InputError } from "../../engine/io/errors.ts";
import type { Model } from "../../engine/models/model.ts";
import { defaultWindow, TRACE_KINDS, type TraceKind } from "./cells.ts";
import { type GridOptions, type Grids, traceGrids } from "./grids.ts";
import { subjectDeviation } from "./noise.ts";
import { recall, type TraceRequest } from "./prompt.ts";

/** How to trace facts. */
export interface TraceOptions
  extends Partial<Pick<GridOptions, "kinds" | "window" | "samples" | "seed" | "maxRows">> {
  /** Size of the noise in standard deviations of the subjects' embeddings. Default 3, the authors'. */
  deviations?: number;
  /** The noise ν itself; in place of `deviations`. */
  noise?: number;
  /** Subjects whose embeddings set the noise; default those of all requests. */
  subjects?: readonly string[];
  /** Facts at most; those that the model does not know do not count. */
  limit?: number;
  /** Traces of an interrupted call with the same options: their prompts are not traced again. */
  done?: readonly FactTrace[];
  /** Called before the first fact, with the settings that all traces will have. */
  onStart?: (result: TraceResult) => void;
  /** Called with each new trace as soon as it is there, and all that there are so far. */
  onTrace?: (trace: FactTrace, result: TraceResult) => void | Promise<void>;
  /** Share of all work that is done. */
  onProgress?: (done: number, total: number) => void;
}

/** The trace of one fact. */
export interface FactTrace extends Grids {
  prompt: string;
  /** As the prompt has it. */
  subject: string;
  /** Tokens as text. */
  tokens: string[];
  /** The subject's tokens [first, end). */
  subjectTokens: [first: number, end: number];
  /** The token whose probability is traced, as text. */
  answer: string;
}

/** What {@link trace} finds. */
export interface TraceResult {
  /** ν */
  noise: number;
  /** Of the subjects' embeddings; undefined when the noise was given. */
  deviation?: number;
  window: number;
  samples: number;
  seed: number;
  kinds: readonly TraceKind[];
  traces: FactTrace[];
  /** Facts that the model answers otherwise. */
  unknown: { prompt: string; expected: string; says: string }[];
}

/** Facts that are asked for at a time. */
const BATCH = 32;

/**
 * Traces facts one after another; see grids.ts for what a trace is.
 * @throws {InputError} for a subject that is not in its prompt, or noise that is no positive number
 */
export async function trace(
  model: Model,
  requests: readonly TraceRequest[],
  options: TraceOptions = {},
): Promise<TraceResult> {
  const { kinds = TRACE_KINDS.slice(0, 3), samples = 10, seed = 1, maxRows } = options;
  const { window = defaultWindow(model.dims.layers), deviations = 3, limit = Infinity } = options;
  const deviation = options.noise === undefined
    ? await subjectDeviation(model, options.subjects ?? [...new Set(requests.map((r) => r.subject.trim()))])
    : undefined;
  const noise = options.noise ?? deviations * deviation!;
  if (!(noise > 0 && Number.isFinite(noise))) {
    throw new InputError(`The noise must be a positive number, got ${noise}`);
  }
  const result: TraceResult = { noise, deviation, window, samples, seed, kinds, traces: [], unknown: [] };
  options.onStart?.(result);
  const { tokenizer } = model;
  const expected = Math.min(limit, requests.length);
  for (let at = 0; at < requests.length && result.traces.length < limit; at += BATCH) {
    for (const { request, prompt, says, known } of await recall(model, requests.slice(at, at + BATCH))) {
      if (result.traces.length >= limit) break;
      const { text, ids, subject } = prompt;
      if (!known) {
        result.unknown.push({ prompt: text, expected: request.answer!, says: tokenizer.token(says) });
        continue;
      }
      const before = options.done?.find((t) => t.prompt === text && t.subjectTokens[0] === subject[0]);
      if (before) {
        result.traces.push(before);
        continue;
      }
      const grids = await traceGrids(model, { ids, subject, answer: says }, {
        ...{ kinds, noise, window, samples, seed, maxRows },
        onProgress: (done, total) => options.onProgress?.(result.traces.length + done / total, expected),
      });
      const made: FactTrace = {
        prompt: text,
        subject: request.subject.trim(),
        tokens: ids.map((id) => tokenizer.token(id)),
        subjectTokens: subject,
        answer: tokenizer.token(says),
        ...grids,
      };
      result.traces.push(made);
      await options.onTrace?.(made, result);
    }
  }
  return result;
}
