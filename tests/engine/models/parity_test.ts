/**
 * Every architecture against transformers: logits, hidden states at every site, gradients to activations and
 * to every parameter, greedy continuations. The tolerance is the 1e-4 relative; f32 sums of this size
 * differ by about 1e-6.
 */
import assert from "node:assert/strict";
import { generate } from "../../../engine/models/generate.ts";
import { type LoadedModel, loadModel } from "../../../engine/models/load.ts";
import { checkpointLayout } from "../../../engine/models/layout.ts";
import { finalNorm, forward, tensor, weight } from "../../../engine/models/model.ts";
import { packRows, type Rows } from "../../../engine/models/rows.ts";
import type { Hook, Site } from "../../../engine/models/sites.ts";
import { type Ctx, Tape } from "../../../engine/ops/context.ts";
import { captureGrad, gatherRows } from "../../../engine/ops/rows.ts";
import { copy } from "../../../engine/ops/elementwise.ts";
import { logits, vocabLoss } from "../../../engine/ops/vocab_loss.ts";
import { createTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";
import { readReference, type Reference, relativeError } from "./_fixtures.ts";

const TOLERANCE = 1e-4;
const MODELS = [
  "gpt2-tiny",
  "gpt2-tiny-sharded",
  "llama-tiny",
  "llama3-rope-tiny",
  "mistral-tiny",
  "qwen2-tiny",
  "smollm2-tiny",
];

/** The reference's per-sequence tensors of one kind, in row order. */
function stacked(reference: Reference, name: string): Float32Array {
  const parts = reference.sequences.map((_, i) => reference.tensors.get(`seq${i}.${name}`)!.values);
  return Float32Array.from(parts.flatMap((p) => [...p]));
}

function sitesOf(reference: Reference): Site[] {
  return [...reference.tensors.keys()]
    .filter((name) => name.startsWith("seq0.") && !name.startsWith("seq0.grad.") && name !== "seq0.logits")
    .map((name) => name.slice("seq0.".length) as Site);
}

/** Checks all collected tensors and reports the worst. */
async function compare(model: LoadedModel, pairs: [name: string, got: Tensor, want: Float32Array][]) {
  for (const [name, got, want] of pairs) {
    const error = relativeError(await readF32(model.gpu, got), want);
    assert.ok(error <= TOLERANCE, `${name} is off by ${error.toExponential(2)} relative`);
  }
}

async function checkForward(model: LoadedModel, reference: Reference, rows: Rows) {
  const { gpu } = model;
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const pairs: [string, Tensor, Float32Array][] = [];
  const hooks = new Map<Site, Hook>();
  for (const site of sitesOf(reference)) {
    hooks.set(site, (ctx, value) => {
      const kept = createTensor(gpu, site, value.shape);
      copy(ctx, value, kept);
      pairs.push([site, kept, stacked(reference, site)]);
      return value;
    });
  }
  const h = finalNorm(ctx, model, forward(ctx, model, rows, { hooks }), hooks);
  const z = createTensor(gpu, "logits", [rows.count, model.dims.vocab]);
  copy(ctx, logits(ctx, h, weight(model, "head")), z);
  pairs.push(["logits", z, stacked(reference, "logits")]);
  using plan = ctx.r.finish("parity forward");
  plan.run();
  assert.equal(pairs.length, sitesOf(reference).length + 1);
  await compare(model, pairs);
}

/** Every parameter as the tape sees it: its role's tensor and its name in the checkpoint. */
function parameters(model: LoadedModel): { name: string; tensor: Tensor }[] {
  return checkpointLayout(model.config).flatMap((entry) => {
    if (entry.kind !== "linear") return [{ name: entry.name, tensor: tensor(model, entry.role) }];
    const w = weight(model, entry.role);
    return [
      { name: entry.name, tensor: w.matrix },
      ...(w.bias ? [{ name: entry.bias!, tensor: w.bias }] : []),
    ];
  });
}

async function checkBackward(model: LoadedModel, reference: Reference, rows: Rows, chunk?: number) {
  const { gpu } = model;
  const tape = new Tape();
  const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
  const pairs: [string, Tensor, Float32Array][] = [];
  const weightsToo = chunk === undefined;
  for (const { name, tensor } of weightsToo ? parameters(model) : []) {
    const grad = createTensor(gpu, `d ${name}`, tensor.shape);
    tape.require(tensor, grad);
    pairs.push([`grad.${name}`, grad, reference.tensors.get(`grad.${name}`)!.values]);
  }
  const hooks = new Map<Site, Hook>();
  if (!weightsToo) hooks.set("embed", (_, value) => (tape.require(value), value));
  for (let n = 0; n < model.dims.layers; n++) {
    hooks.set(`layer.${n}.out`, (ctx, value) => {
      const grad = createTensor(gpu, `d layer ${n}`, value.shape);
      captureGrad(ctx, value, grad);
      pairs.push([`grad.layer.${n}.out`, grad, stacked(reference, `grad.layer.${n}.out`)]);
      return value;
    });
  }
  const h = finalNorm(ctx, model, forward(ctx, model, rows, { hooks }));
  const wanted = rows.places.flatMap(({ sequence, position }, row) => {
    const ids = reference.sequences[sequence];
    return position + 1 < ids.length
      ? [{ row, target: ids[position + 1], weight: 1 / (ids.length - 1) }]
      : [];
  });
  const n = wanted.length;
  const u32 = (values: number[]) => fromHost(gpu, "loss rows", [n], Uint32Array.from(values));
  const loss = vocabLoss(ctx, gatherRows(ctx, h, u32(wanted.map((w) => w.row))), weight(model, "head"), {
    targets: u32(wanted.map((w) => w.target)),
    weights: fromHost(gpu, "loss weights", [n], Float32Array.from(wanted, (w) => w.weight)),
    chunk,
  });
  tape.backward();
  const kept = createTensor(gpu, "losses", loss.shape);
  copy(ctx, loss, kept);
  using plan = ctx.r.finish("parity backward");
  plan.run();
  await compare(model, pairs);
  return (await readF32(gpu, kept)).reduce((a, b) => a + b, 0);
}

for (const name of MODELS) {
  Deno.test(`${name} agrees with transformers`, (t) =>
    withGpu(async (gpu) => {
      const reference = await readReference(name);
      using model = await loadModel(gpu, reference.folder, { tokenizer: false, maxShardBytes: 4096 });
      using rows = packRows(gpu, reference.sequences.map((ids) => ({ ids })), {
        windows: model.dims.windows,
      });
      await t.step("logits and hidden states at every site", () => checkForward(model, reference, rows));
      await t.step("gradients of activations and parameters", async () => {
        await checkBackward(model, reference, rows);
      });
      await t.step("the same loss when the vocabulary comes in chunks", async () => {
        const whole = await checkBackward(model, reference, rows, model.dims.vocab);
        const chunked = await checkBackward(model, reference, rows, 16);
        assert.ok(Math.abs(whole - chunked) <= 1e-5 * Math.abs(whole), `${whole} and ${chunked}`);
      });
      await t.step("greedy continuations over cached keys", async () => {
        const prompts = reference.greedy.map((g) => g.prompt);
        const texts = await generate(model, prompts, { maxTokens: reference.greedy[0].new.length, stop: [] });
        assert.deepEqual(texts, reference.greedy.map((g) => g.new));
      });
    })());
}
