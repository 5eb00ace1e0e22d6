/**
 * Ten edits by one method in a process of its own, measured: the seconds and the memory that they take, what the
 * editor leaves behind, and whether the facts took. One JSON line on standard output; `tools/methods.ts` asks for
 * every method in turn.
 *
 *   deno run -A tools/methods/measure.ts MODEL DATASET METHOD RECORDS [HPARAMS]
 */
import { apply, type Edit, edit, load, readCase, readDataset, scoreCase } from "../../mod.ts";
import { InputError } from "../../engine/io/errors.ts";
import { harmonicScore } from "../../evaluation/metrics/index.ts";

/** What is known of a method after its edits. */
export interface Measured {
  method: string;
  /** Seconds of the edits as one call, on a fresh process: the compilation of shaders included. */
  seconds: number;
  /** Device bytes at the peak, and how many of them are the model's. */
  gpu_peak_bytes: number;
  gpu_model_bytes: number;
  /** The process's resident bytes at the peak. */
  host_peak_bytes: number;
  /** Where something changed or was put: roles, parts, "prompt". */
  area: string[];
  /** Numbers that the edits consist of. */
  numbers: number;
  /** Whether an edit more can be made on the edited model, and then still both answer. */
  online: boolean;
  /** Means over the records. */
  score?: number;
  metrics: Record<string, number>;
}

/** The places that an edit touches, and how many numbers it has there. */
export function extent({ deltas, additions = [], prompts }: Edit): Pick<Measured, "area" | "numbers"> {
  const sizes = new Map<string, number>();
  const put = (place: string, size: number) => sizes.set(place, (sizes.get(place) ?? 0) + size);
  for (const { role, left, right, dense } of deltas) put(role, dense?.length ?? left.length + right.length);
  for (const { kind, role, tensors } of additions) {
    for (const { values } of tensors.values()) put(`${kind} beside ${role}`, values.length);
  }
  if (prompts) put("prompt", 0);
  return { area: [...sizes.keys()], numbers: [...sizes.values()].reduce((sum, size) => sum + size, 0) };
}

const mean = (values: number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;

/** The resident memory of this process at its peak, bytes; Linux only. */
async function residentPeak(): Promise<number> {
  const status = await Deno.readTextFile("/proc/self/status").catch(() => "");
  return 1024 * Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0);
}

async function measure(
  name: string,
  data: string,
  method: string,
  records: number,
  hparams: Record<string, unknown>,
): Promise<Measured> {
  using model = await load(name);
  const { cases } = await readDataset(data);
  const chosen = cases.slice(0, records), another = cases[records];
  const plan = { generate: false, texts: false };
  const before = [];
  for (const one of chosen) before.push(await readCase(model, one, plan, 0));
  const { memory } = model.gpu;
  memory.resetPeak();
  const gpu_model_bytes = memory.now;
  const start = performance.now();
  const made = await edit(model, chosen.flatMap(({ requests }) => requests), { method, hparams });
  const seconds = (performance.now() - start) / 1000;
  const gpu_peak_bytes = memory.peak, host_peak_bytes = await residentPeak();
  using _applied = apply(model, made);
  const scores: Record<string, number>[] = [];
  for (const [i, one] of chosen.entries()) {
    scores.push(scoreCase(one, before[i], await readCase(model, one, plan, 0)));
  }
  const metrics: Record<string, number> = {};
  for (const metric of ["ES", "PS", "NS", "tf.seq.rewrite"]) {
    metrics[metric] = mean(scores.map((of) => of[metric]).filter((x) => x !== undefined));
  }
  let online = true;
  try {
    using _next = apply(model, await edit(model, another.requests, { method, hparams }));
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    console.error(`${method}, one more: ${error.message}`);
    online = false;
  }
  const { ES, PS, NS } = metrics;
  return {
    method,
    seconds,
    gpu_peak_bytes,
    gpu_model_bytes,
    host_peak_bytes,
    ...extent(made),
    online,
    score: harmonicScore(ES, PS, NS),
    metrics,
  };
}

if (import.meta.main) {
  const [model, data, method, records, hparams = "{}"] = Deno.args;
  console.log(JSON.stringify(await measure(model, data, method, Number(records), JSON.parse(hparams))));
}
