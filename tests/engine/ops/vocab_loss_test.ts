import { throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { Tape, temp } from "../../../engine/ops/context.ts";
import { logits, logSoftmax, vocabLoss } from "../../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, ELEMENTWISE, finiteDifference, normals } from "./_reference.ts";
import { type Case, logitsOf, logProbabilities, uploaded, type Values, valuesOf } from "./_vocab.ts";

/** weight·(−log p(target)) in rows before the KL rows, weight·KL(p‖q) in those, or KL(q‖p). */
function lossesOf(c: Case, v: Values, targets: number[], weights: Float64Array): number[] {
  return targets.map((target, row) => {
    const logP = logProbabilities(logitsOf(c, v, row));
    const klRow = row - (c.rows - (c.kl ?? 0));
    if (klRow < 0) return weights[row] * -logP[target];
    const logQ = v.reference.subarray(klRow * c.vocab);
    const of = (lp: number, lq: number) => c.reversed ? Math.exp(lq) * (lq - lp) : Math.exp(lp) * (lp - lq);
    return weights[row] * logP.reduce((sum, lp, t) => sum + of(lp, logQ[t]), 0);
  });
}

/** Losses, and the gradient of their sum to h and, where it is asked for, to the head. */
async function check(gpu: Gpu, c: Case, { trained = false } = {}) {
  const v = valuesOf(c);
  const { h, head, want, targets, weights, free } = uploaded(gpu, c, v);
  const parts: Record<string, Tensor> = { h };
  if (trained) {
    Object.assign(parts, { w: head.matrix }, head.bias && { bias: head.bias });
    head.overlays.forEach(({ left, right }, n) => {
      Object.assign(parts, { [`left${n}`]: left, [`right${n}`]: right });
    });
  }
  const [loss, ...grads] = await evaluate(gpu, (ctx) => {
    const tape = ctx.tape!;
    Object.values(parts).forEach((t) => tape.require(t));
    const loss = vocabLoss(ctx, h, head, want);
    tape.backward();
    return [loss, ...Object.values(parts).map((t) => tape.grad(t)!)];
  });
  // A logit is a dot of `width` of size √width, and the loss a difference of such logits.
  const scale = Math.sqrt(c.width) * (1 + (c.overlays?.length ?? 0));
  const tolerance = scale * (ELEMENTWISE + dotTolerance(c.width));
  const label = JSON.stringify(c);
  assertClose(loss, lossesOf(c, v, targets, weights), tolerance, `${label} loss`);
  Object.keys(parts).forEach((name, i) => {
    const total = (x: Float64Array) =>
      lossesOf(c, { ...v, [name]: x }, targets, weights).reduce((a, b) => a + b, 0);
    // Sums over the vocabulary or over the rows.
    const summed = tolerance + dotTolerance(Math.max(c.vocab, c.rows));
    assertClose(grads[i], finiteDifference(total, v[name]), summed, `${label} d ${name}`);
  });
  free();
}

Deno.test(
  "vocabLoss() equals the f64 cross entropy and its differences when shapes are odd",
  withGpu(async (gpu) => {
    for (const [rows, width, vocab] of [[1, 1, 1], [1, 3, 2], [3, 5, 63], [5, 8, 65], [2, 7, 131]]) {
      await check(gpu, { rows, width, vocab });
    }
  }),
);

Deno.test(
  "vocabLoss() equals the f64 divergence and its differences in KL rows",
  withGpu(async (gpu) => {
    await check(gpu, { rows: 5, width: 6, vocab: 67, kl: 2 });
    await check(gpu, { rows: 3, width: 6, vocab: 64, kl: 3 });
    await check(gpu, { rows: 5, width: 6, vocab: 67, kl: 2, reversed: true });
    await check(gpu, { rows: 3, width: 6, vocab: 131, kl: 3, reversed: true, chunk: 64 });
  }),
);

Deno.test(
  "vocabLoss() gives head gradients when one chunk holds the vocabulary",
  withGpu(async (gpu) => {
    await check(gpu, { rows: 5, width: 4, vocab: 13, kl: 1 }, { trained: true });
    await check(gpu, { rows: 3, width: 4, vocab: 11, bias: true, overlays: [1, 2] }, { trained: true });
  }),
);

Deno.test(
  "vocabLoss() gives gradients to a head's bias and overlays alone",
  withGpu(async (gpu) => {
    const c: Case = { rows: 3, width: 4, vocab: 11, bias: true, overlays: [2] };
    const v = valuesOf(c);
    const { h, head, want, targets, weights, free } = uploaded(gpu, c, v);
    const parts = { bias: head.bias!, left0: head.overlays[0].left, right0: head.overlays[0].right };
    for (const [name, t] of Object.entries(parts)) {
      const [grad] = await evaluate(gpu, (ctx) => {
        ctx.tape!.require(t);
        vocabLoss(ctx, h, head, want);
        ctx.tape!.backward();
        return [ctx.tape!.grad(t)!];
      });
      const total = (x: Float64Array) =>
        lossesOf(c, { ...v, [name]: x }, targets, weights).reduce((a, b) => a + b, 0);
      const tolerance = 4 * (ELEMENTWISE + dotTolerance(c.vocab));
      assertClose(grad, finiteDifference(total, v[name]), tolerance, `d ${name}`);
    }
    free();
  }),
);

Deno.test(
  "vocabLoss() agrees with the definition when the vocabulary comes in chunks and row shards",
  withGpu(async (gpu) => {
    const c = { rows: 5, width: 6, vocab: 131, kl: 2 };
    for (const chunk of [1, 64, 65, 130, 131, 1000]) await check(gpu, { ...c, chunk });
    const maxShardBytes = 4 * 6 * 40;
    for (const chunk of [16, 40, 131]) await check(gpu, { ...c, chunk, maxShardBytes });
  }),
);

Deno.test(
  "vocabLoss() applies a head's bias and overlays in every chunk",
  withGpu(async (gpu) => {
    for (const maxShardBytes of [undefined, 4 * 6 * 12]) {
      const c = { rows: 4, width: 6, vocab: 41, kl: 1, maxShardBytes };
      for (const chunk of [41, 9]) await check(gpu, { ...c, chunk, bias: true, overlays: [1, 3] });
    }
  }),
);

Deno.test(
  "vocabLoss() finds no divergence when p and q are the same",
  withGpu(async (gpu) => {
    const [rows, width, vocab] = [3, 8, 257];
    for (const chunk of [257, 64]) {
      const { h, head, want, free } = uploaded(gpu, { rows, width, vocab }, valuesOf({ rows, width, vocab }));
      const ones = fromHost(gpu, "ones", [rows], new Float32Array(rows).fill(1));
      const [loss, gradient] = await evaluate(gpu, (ctx) => {
        const q = temp(ctx, "log q", [rows, vocab]);
        logSoftmax(ctx, logits(ctx, h, head), q);
        ctx.tape!.require(h);
        const loss = vocabLoss(ctx, h, head, {
          ...{ targets: want.targets, weights: ones, kl: { rows, reference: q }, chunk },
        });
        ctx.tape!.backward();
        return [loss, ctx.tape!.grad(h)!];
      });
      // The terms are of size log(257) = 5.5 and cancel: a few roundings of 2⁻²⁴·5.5 = 3e-7 are left.
      assertClose(loss, new Float64Array(rows), 1e-6, "KL");
      // The same errors, weighted by p and multiplied by head weights of up to 4.
      assertClose(gradient, new Float64Array(rows * width), 4e-6, "d h");
      freeTensor(gpu, ones);
      free();
    }
  }),
);

Deno.test(
  "vocabLoss() stays finite when logits are large",
  withGpu(async (gpu) => {
    const c = { rows: 2, width: 1, vocab: 70, chunk: 32 };
    const v = { ...valuesOf(c), h: Float64Array.of(200, -200) };
    const { h, head, want, targets, weights, free } = uploaded(gpu, c, v);
    const [loss] = await evaluate(gpu, (ctx) => [vocabLoss(ctx, h, head, want)]);
    assertClose(loss, lossesOf(c, v, targets, weights), ELEMENTWISE, "loss");
    free();
  }),
);

Deno.test(
  "logSoftmax() equals the f64 formula and sums to one",
  withGpu(async (gpu) => {
    for (const [rows, vocab] of [[1, 1], [3, 63], [2, 131]]) {
      const z = normals(rows * vocab, 1, 10);
      const t = fromHost(gpu, "z", [rows, vocab], z);
      const [out] = await evaluate(gpu, (ctx) => {
        const out = temp(ctx, "log p", [rows, vocab]);
        logSoftmax(ctx, t, out);
        return [out];
      });
      const expected = Array.from(
        { length: rows },
        (_, r) => logProbabilities([...z.subarray(r * vocab, (r + 1) * vocab)]),
      );
      assertClose(out, expected.flat(), ELEMENTWISE, `${rows}×${vocab}`);
      freeTensor(gpu, t);
    }
  }),
);

Deno.test(
  "vocabLoss() refuses what it cannot do, by name",
  withGpu((gpu) => {
    const c = { rows: 3, width: 4, vocab: 20, overlays: [1] };
    const { h, head, want, free } = uploaded(gpu, c, valuesOf(c));
    const ctx = { gpu, r: gpu.recorder(), tape: new Tape() };
    const short = createTensor(gpu, "two targets", [2], { dtype: "u32" });
    throws(
      () => vocabLoss(ctx, h, head, { ...want, targets: short }),
      /h \[3, 4\] needs 3 targets and weights, got two targets \[2\]/,
    );
    throws(
      () => vocabLoss(ctx, h, { ...head, layout: "in_out" }, { ...want, chunk: 8 }),
      /Chunked losses need a head stored \[vocab, width\]/,
    );
    for (const t of [head.matrix, head.overlays[0].left]) {
      const tape = new Tape();
      tape.require(t);
      throws(
        () => vocabLoss({ ...ctx, tape }, h, head, { ...want, chunk: 8 }),
        /Head weight gradients need the whole vocabulary in one chunk/,
      );
    }
    freeTensor(gpu, short);
    free();
  }),
);
