import { deepStrictEqual, throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { epochRule, type EpochState } from "../../../engine/ops/epoch_rule.ts";
import { createTensor, freeTensor, storageOf } from "../../../engine/tensor/tensor.ts";
import { readTensors, writeTensor } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";

const THRESHOLD = 0.25;

/** Runs batches of losses, [epoch][batch][example], with the epoch as penalty; the state after every batch. */
async function simulate(gpu: Gpu, losses: number[][][], updates: number) {
  const sizes = losses[0].map((batch) => batch.length);
  const width = sizes.reduce((a, b) => a + b) + 1;
  const make = (label: string, shape: number[], dtype: "f32" | "u32") =>
    createTensor(gpu, label, shape, { dtype });
  const state: EpochState = {
    history: make("history", [updates + 1, width], "f32"),
    epoch: make("epoch", [1], "u32"),
    total: make("total", [1], "f32"),
    bad: make("bad", [2], "u32"),
    skip: make("skip", [1], "u32"),
    gate: make("gate", [1], "u32"),
  };
  const penalty = make("penalty", [1], "f32");
  const batches = sizes.map((n, b) => {
    const terms = make("terms", [n], "f32");
    const first = sizes.slice(0, b).reduce((a, b) => a + b, 0);
    const r = gpu.recorder();
    const batch = { terms, penalty, first, closes: b === sizes.length - 1 };
    r.gated(storageOf(state.gate), () => epochRule({ gpu, r }, state, batch, THRESHOLD));
    return { terms, plan: r.finish("epoch rule") };
  });
  const seen = [];
  for (const [e, epoch] of losses.entries()) {
    writeTensor(gpu, penalty, [e]);
    for (const [b, batch] of epoch.entries()) {
      writeTensor(gpu, batches[b].terms, batch.map((loss) => loss / batch.length));
      batches[b].plan.run();
      const [skip, gate] = await readTensors(gpu, state.skip, state.gate);
      seen.push([skip[0], gate[0]]);
    }
  }
  const [history, epoch, bad] = await readTensors(gpu, state.history, state.epoch, state.bad);
  batches.forEach(({ plan, terms }) => (plan.dispose(), freeTensor(gpu, terms)));
  [penalty, ...Object.values(state)].forEach((t) => freeTensor(gpu, t));
  const rows = Array.from(
    { length: updates + 1 },
    (_, e) => [...history.subarray(e * width, (e + 1) * width)],
  );
  return { seen, rows, epoch: epoch[0], bad: [...bad] };
}

Deno.test(
  "epochRule() makes all updates and looks once more when no loss is below the threshold",
  withGpu(async (gpu) => {
    const { seen, rows, epoch } = await simulate(gpu, [[[2, 1]], [[1, 1]], [[1, 0.5]], [[9, 9]]], 2);
    deepStrictEqual(seen, [[0, 0], [0, 0], [1, 1], [1, 1]]);
    deepStrictEqual(rows, [[2, 1, 0], [1, 1, 1], [1, 0.5, 2]]);
    deepStrictEqual(epoch, 3);
  }),
);

Deno.test(
  "epochRule() skips a batch below the threshold and ends with an epoch whose mean is",
  withGpu(async (gpu) => {
    const { seen, rows, epoch, bad } = await simulate(gpu, [
      // Means: batches 0.125 and 1, the epoch (2·0.125 + 1)/3 ≥ 0.25.
      [[0.125, 0.125], [1]],
      // Batches 0.0625 and 0.5; the epoch (2·0.0625 + 0.5)/3 < 0.25: its last batch has its update all the same.
      [[0.125, 0], [0.5]],
      [[9, 9], [9]],
    ], 5);
    deepStrictEqual(seen, [[1, 0], [0, 0], [1, 0], [0, 1], [1, 1], [1, 1]]);
    deepStrictEqual(rows.slice(0, 3), [[0.125, 0.125, 1, 0], [0.125, 0, 0.5, 1], [0, 0, 0, 0]]);
    deepStrictEqual([epoch, ...bad], [2, 0, 0]);
  }),
);

Deno.test(
  "epochRule() ends at a loss that is not finite, and remembers the first one",
  withGpu(async (gpu) => {
    for (const worse of [NaN, Infinity]) {
      const { seen, bad } = await simulate(gpu, [[[1], [1]], [[1], [worse]], [[1], [1]]], 5);
      deepStrictEqual(seen, [[0, 0], [0, 0], [0, 0], [1, 1], [1, 1], [1, 1]]);
      deepStrictEqual(bad, [2, 1]);
    }
  }),
);

Deno.test(
  "epochRule() names the tensors when a batch does not fit the history",
  withGpu((gpu) => {
    const t = (label: string, ...shape: number[]) => createTensor(gpu, label, shape);
    const one = t("one", 1);
    const state: EpochState = {
      history: t("history", 3, 3),
      epoch: one,
      total: one,
      bad: one,
      skip: one,
      gate: one,
    };
    const batch = { terms: t("terms", 2), penalty: one, first: 1, closes: true };
    const ctx = { gpu, r: gpu.recorder() };
    throws(() => epochRule(ctx, state, batch, 0), /terms \[2\] from 1 on does not fit history \[3, 3\]/);
    [one, state.history, batch.terms].forEach((x) => freeTensor(gpu, x));
  }),
);
