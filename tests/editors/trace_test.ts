/** Causal tracing's parts: cells and windows, what is saved against the plain way, prompts, averages. */
import assert from "node:assert/strict";
import { averageTraces, classRows, TOKEN_CLASSES } from "../../editors/tracing/average.ts";
import {
  type Cell,
  cellsOf,
  defaultWindow,
  groupCells,
  TRACE_KINDS,
  windowAt,
} from "../../editors/tracing/cells.ts";
import { type GridOptions, traceGrids } from "../../editors/tracing/grids.ts";
import { legacyNormals } from "../../editors/tracing/noise.ts";
import { recall, subjectTokens } from "../../editors/tracing/prompt.ts";
import type { TracePrompt } from "../../editors/tracing/runs.ts";
import { type FactTrace, trace } from "../../editors/tracing/trace.ts";
import { InputError } from "../../engine/io/errors.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { loadModel } from "../../engine/models/load.ts";
import { packRows } from "../../engine/models/rows.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { addToRows, gatherRows, scatterRows } from "../../engine/ops/rows.ts";
import { vocabScores } from "../../engine/ops/vocab_loss.ts";
import { createTensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../engine/tensor/transfer.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { withGpu } from "../_gpu.ts";
import { traceCases, TRACING } from "./_trace.ts";

const MODELS = new URL("../fixtures/models/", import.meta.url).pathname;

/** Longer than mistral-tiny's attention window of 4. */
const PROMPT: TracePrompt = { ids: [70, 39, 51, 11, 58, 3, 4, 8], subject: [2, 4], answer: 22 };

/** P*(t, l) as the authors compute it: everything anew, for all rows, for every cell. */
async function plainScore(
  model: Model,
  { ids, subject: [first, end], answer }: TracePrompt,
  { noise, samples = 10, seed = 1 }: GridOptions,
  token: number,
  sites: readonly Site[],
): Promise<number> {
  const { gpu, dims: { width, windows } } = model;
  const T = ids.length, runs = Array.from({ length: samples }, (_, i) => 1 + i);
  const u32 = (values: number[]) => fromHost(gpu, "index", [values.length], Uint32Array.from(values));
  const noisy = runs.flatMap((run) => Array.from({ length: end - first }, (_, i) => run * T + first + i));
  const draws = legacyNormals(seed, noisy.length * width).map((x) => noise * x);
  const delta = fromHost(gpu, "noise", [noisy.length, width], Float32Array.from(draws));
  const restore: Hook = (ctx, value) => {
    scatterRows(
      ctx,
      gatherRows(ctx, value, u32(runs.map(() => token))),
      u32(runs.map((r) => r * T + token)),
      value,
    );
    return value;
  };
  const hooks = new Map<Site, Hook>(sites.map((site) => [site, restore]));
  hooks.set("embed", (ctx, value) => addToRows(ctx, value, u32(noisy), u32(noisy.map((_, i) => i)), delta));
  using rows = packRows(gpu, [0, ...runs].map(() => ({ ids })), { windows });
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const h = gatherRows(ctx, forward(ctx, model, rows, { hooks }), u32(runs.map((r) => r * T + T - 1)));
  const logProbs = createTensor(gpu, "log-probabilities", [samples]);
  const best = createTensor(gpu, "best", [samples], { dtype: "u32" });
  const asked = { rows: u32(runs.map((r) => r - 1)), targets: u32(runs.map(() => answer)) };
  vocabScores(ctx, finalNorm(ctx, model, h), weight(model, "head"), asked, { logProbs, best });
  using plan = ctx.r.finish("plain");
  plan.run();
  const p = await readF32(gpu, logProbs);
  return p.reduce((sum, x) => sum + Math.exp(x), 0) / samples;
}

Deno.test("windowAt() has the authors' layers: five below, four above, clipped", () => {
  assert.deepEqual(windowAt(20, 10, 48), [15, 25]);
  assert.deepEqual(windowAt(0, 10, 48), [0, 5]);
  assert.deepEqual(windowAt(47, 10, 48), [42, 48]);
  assert.deepEqual(windowAt(3, 1, 6), [3, 4]);
  assert.deepEqual(windowAt(3, 3, 6), [2, 5]);
});

Deno.test("defaultWindow() is the authors' for their models, and half of shallower ones", () => {
  // GPT-2 XL, GPT-J, GPT-NeoX, GPT-2 large and medium: experiments/causal_trace.py has one window for all.
  assert.deepEqual([48, 28, 44, 36, 24].map(defaultWindow), [10, 10, 10, 10, 10]);
  assert.deepEqual([30, 12, 6, 2, 1].map(defaultWindow), [10, 6, 3, 1, 1]);
});

Deno.test("cellsOf() leaves out what cannot differ and joins windows that are equal", () => {
  const shape = { tokens: 5, first: 2, layers: 6, window: 10 };
  const states = cellsOf("state", shape);
  // Tokens 2 and 3: layers 0 to 4; the last token: all.
  assert.equal(states.length, 5 + 5 + 6);
  assert.ok(states.every(({ token, from }) => token >= 2 && (from < 6 || token === 4)));
  const windows = cellsOf("mlp", shape);
  // [0, 5) is layer 0's; layers 1 to 5 have [0, 6), which is the same run up to layer 5.
  assert.deepEqual(windows.filter(({ token }) => token === 3).map(({ layers }) => layers), [[0], [
    1,
    2,
    3,
    4,
    5,
  ]]);
  const [first, rest] = windows.filter(({ token }) => token === 3);
  assert.deepEqual([rest.from, rest.start, rest.hold?.to], [1, "mlp", 6]);
  assert.deepEqual([first.from, first.start === rest, first.hold], [5, true, undefined]);
  const [group] = groupCells([first, rest], () => 10, 5);
  assert.deepEqual(group, [rest, first], "they run together, whatever their rows");
});

Deno.test("groupCells() cuts by rows, in the order of layers", () => {
  const cell = (from: number): Cell => ({
    kind: "state",
    token: 0,
    layers: [from - 1],
    from,
    start: "clean",
  });
  const groups = groupCells([3, 1, 2, 4].map(cell), () => 10, 25);
  assert.deepEqual(groups.map((g) => g.map(({ from }) => from)), [[1, 2], [3, 4]]);
  assert.equal(groupCells([1, 2].map(cell), () => 10, 5).length, 2);
});

for (const name of ["gpt2-tiny", "mistral-tiny", "qwen2-tiny"]) {
  Deno.test(
    `traceGrids() on ${name} says what the plain way says`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      const { layers } = model.dims;
      const options = { kinds: ["state", "mlp", "attn"] as const, noise: 0.3, samples: 3, window: 2 };
      const { corrupted, scores } = await traceGrids(model, PROMPT, options);
      const close = (a: number, b: number, what: string) =>
        assert.ok(Math.abs(a / b - 1) < 1e-5, `${what}: ${a}, ${b}`);
      close(corrupted, await plainScore(model, PROMPT, options, 0, []), "corrupted");
      for (const token of [0, 2, 5, 7]) {
        for (let layer = 0; layer < layers; layer++) {
          const [low, high] = windowAt(layer, 2, layers);
          const range = Array.from({ length: high - low }, (_, i) => low + i);
          const sites: Record<string, Site[]> = {
            state: [`layer.${layer}.out`],
            mlp: range.map((n) => `layer.${n}.mlp.out` as const),
            attn: range.map((n) => `layer.${n}.attn.out` as const),
          };
          for (const kind of options.kinds) {
            const want = await plainScore(model, PROMPT, options, token, sites[kind]);
            close(scores[kind]![token][layer], want, `${kind} at token ${token}, layer ${layer}`);
          }
        }
      }
    }),
  );
}

Deno.test(
  "traceGrids() does not depend on what runs together, and waits once a plan",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, `${TRACING}llama-deep`, { tokenizer: false });
    const { middle } = await traceCases("llama-deep");
    const options = { kinds: TRACE_KINDS, noise: middle.noise, samples: 2 };
    const before = gpu.waits;
    const together = await traceGrids(model, middle, { ...options, maxRows: 1e6 });
    assert.equal(gpu.waits - before, 2);
    const held = () => gpu.memory.owners().filter(([owner]) => owner !== "temporaries");
    const now = held();
    const marks: number[] = [];
    const apart = await traceGrids(model, middle, {
      ...options,
      maxRows: 30,
      onProgress: (done, total) => marks.push(done / total),
    });
    assert.deepEqual(held(), now, "memory is given back");
    assert.ok(marks.length > 20 && marks.at(-1) === 1 && marks.every((m, i) => i === 0 || m > marks[i - 1]));
    for (const kind of TRACE_KINDS) {
      const off = together.scores[kind]!.flat().map((p, i) =>
        Math.abs(p / apart.scores[kind]!.flat()[i] - 1)
      );
      assert.ok(Math.max(...off) < 1e-5, `${kind}: ${Math.max(...off)}`);
    }
    // Before the subject nothing was corrupted; the last state of all is the clean run.
    assert.ok(together.scores.state![0].every((p) => p === together.corrupted));
    assert.ok(Math.abs(together.scores.state!.at(-1)!.at(-1)! / together.clean - 1) < 1e-5);
  }),
);

Deno.test(
  "subjectTokens() finds the subject's first occurrence, or where {} is",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const { tokenizer } = model;
    const words = ({ ids, subject }: { ids: number[]; subject: [number, number] }) =>
      ids.slice(...subject).map((id) => tokenizer.token(id)).join("");
    const prompt = "Rome is in Italy, and Rome is old. Rome lies in";
    const first = subjectTokens(tokenizer, { prompt, subject: "Rome" });
    assert.equal(first.subject[0], 0);
    const marked = subjectTokens(tokenizer, { prompt: "Rome is in Italy. {} lies in", subject: " Rome " });
    assert.equal(words(marked), " Rome");
    assert.ok(marked.subject[0] > 3);
    assert.throws(() => subjectTokens(tokenizer, { prompt: "Paris is in", subject: "Rome" }), InputError);
    assert.throws(() => subjectTokens(tokenizer, { prompt: "{} and {}", subject: "Rome" }), InputError);
    assert.throws(() => subjectTokens(tokenizer, { prompt: "Rome is in", subject: " " }), InputError);
    const [known, unknown, open] = await recall(
      model,
      ["French", "Esperanto", undefined].map((answer) => ({
        prompt: "The first language of {} is",
        subject: "Danielle Darrieux",
        answer,
      })),
    );
    assert.deepEqual([known.known, unknown.known, open.known], [true, false, true]);
    assert.equal(tokenizer.token(unknown.says), " French");
  }),
);

Deno.test(
  "trace() leaves out what the model does not know, and resumes",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const request = (subject: string, answer: string) => ({
      prompt: "The first language of {} is",
      ...{ subject, answer },
    });
    const requests = [request("Danielle Darrieux", "Esperanto"), request("Danielle Darrieux", "French")];
    const options = { kinds: ["mlp"] as const, samples: 2 };
    const held = () => {
      gpu.memory.trim();
      // The device probes itself once, at the first plan.
      return gpu.memory.owners().filter(([owner]) => owner !== "probe");
    };
    const owners = held();
    const found = await trace(model, requests, options);
    assert.deepEqual(held(), owners, "memory is given back");
    assert.deepEqual(found.unknown.map(({ expected, says }) => [expected, says]), [["Esperanto", " French"]]);
    const [one] = found.traces;
    assert.equal(one.answer, " French");
    assert.ok(one.clean > 0.5 && one.corrupted < one.clean);
    const before = gpu.waits;
    const again = await trace(model, requests, { ...options, done: found.traces });
    assert.deepEqual(again, found);
    assert.ok(gpu.waits - before <= 8, "nothing was traced again");
    await assert.rejects(trace(model, requests, { ...options, noise: 0 }), InputError);
  }),
);

/** A made-up trace of the given rows, corrupted at 0.1. */
function made(rows: number[], subjectTokens: [number, number]): FactTrace {
  const tokens = rows.map(String);
  const scores = { state: rows.map((p) => [p, 0.1]) };
  return {
    ...{ prompt: "", subject: "", answer: "", tokens, subjectTokens, scores },
    clean: 0.9,
    corrupted: 0.1,
  };
}

Deno.test("averageTraces() averages by class of tokens, with 95 % intervals of indirect effects", () => {
  const long = made([0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9], [1, 4]);
  const short = made([0.4, 0.6], [0, 1]);
  assert.deepEqual(classRows([[1], [2]], [0, 1]), [[1], undefined, [1], [2], undefined, [2]]);
  assert.deepEqual(classRows([[1], [2], [3]], [0, 3]), [[1], [2], [3], undefined, undefined, [3]]);
  const { kinds: { state }, clean, total } = averageTraces([long, short]);
  const [first, middle, last, after, further, end] = state!.effects.map(([at0]) => at0);
  const near = (got: number, want: number) => assert.ok(Math.abs(got - want) < 1e-12, `${got}, ${want}`);
  near(first.mean, (0.1 + 0.3) / 2);
  near(first.ci95, 1.96 * 0.1);
  assert.deepEqual([middle.n, further.n, first.n], [1, 1, 2]);
  near(middle.mean, 0.2);
  near(last.mean, (0.4 + 0.3) / 2);
  near(after.mean, (0.5 + 0.5) / 2);
  near(further.mean, 0.65);
  near(end.mean, (0.8 + 0.5) / 2);
  near(clean.mean, 0.9);
  near(total.mean, 0.8);
  assert.equal(state!.peak.token, TOKEN_CLASSES[4]);
  near(state!.largest.mean, (0.8 + 0.5) / 2);
  near(state!.largestLastSubject.mean, (0.4 + 0.3) / 2);
  assert.throws(() => averageTraces([]), RangeError);
});
