import { deepStrictEqual } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { stopRule, type StopState, sureRule } from "../../../engine/ops/stop_rule.ts";
import { createTensor, freeTensor, storageOf, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors, writeTensor } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";

const THRESHOLD = 0.05;

/**
 * Applies the rule under its own gate to given losses, [step][edit][part], as a target optimisation does, and
 * looks at the state after every step. Steps that the closed gate swallows change nothing.
 */
async function simulate(gpu: Gpu, losses: number[][][], steps = losses.length) {
  const [edits, parts] = [losses[0].length, losses[0][0].length];
  const u32 = (label: string, n: number, value = 0) =>
    fromHost(gpu, label, [n], new Uint32Array(n).fill(value));
  const state: StopState = {
    terms: createTensor(gpu, "terms", [edits, parts]),
    active: u32("active", edits, 1),
    taken: u32("taken", edits),
    bad: u32("bad", edits),
    history: createTensor(gpu, "history", [steps, edits, parts]),
    step: u32("step", 1),
    gate: u32("gate", 1),
  };
  const r = gpu.recorder();
  r.gated(storageOf(state.gate), () => stopRule({ gpu, r }, state, THRESHOLD));
  using plan = r.finish("stop rule");
  const seen = [];
  for (const step of losses) {
    writeTensor(gpu, state.terms, Float32Array.from(step.flat()));
    plan.run();
    const { active, taken, bad, step: count, gate } = state;
    const [a, t, b, n, g] = (await readTensors(gpu, active, taken, bad, count, gate)).map((x) => [...x]);
    seen.push({ active: a, taken: t, bad: b, step: n[0], gate: g[0] });
  }
  const history = [...(await readTensors(gpu, state.history))[0]];
  Object.values(state).forEach((t: Tensor) => freeTensor(gpu, t));
  return { seen, history };
}

Deno.test(
  "stopRule() stops at the last step when no loss is below the threshold",
  withGpu(async (gpu) => {
    const { seen, history } = await simulate(gpu, [[[1, 0.5]], [[1, 0.25]], [[0.5, 0.25]]]);
    deepStrictEqual(seen, [
      { active: [1], taken: [0], bad: [0], step: 1, gate: 0 },
      { active: [1], taken: [1], bad: [0], step: 2, gate: 0 },
      { active: [0], taken: [2], bad: [0], step: 3, gate: 1 },
    ]);
    deepStrictEqual(history, [1, 0.5, 1, 0.25, 0.5, 0.25]);
  }),
);

Deno.test(
  "stopRule() compares the sum of the terms with the threshold, which itself does not stop",
  withGpu(async (gpu) => {
    const at = Math.fround(THRESHOLD);
    const below = 0.0499;
    const { seen } = await simulate(gpu, [[[0.04, 0.04], [at, 0], [below, 0]]], 5);
    deepStrictEqual(seen[0].active, [1, 1, 0]);
  }),
);

Deno.test(
  "stopRule() stops edits one by one and closes the gate with the last when they end at different steps",
  withGpu(async (gpu) => {
    const high = [1, 1], low = [0.01, 0.02];
    const losses = [[high, low, high], [low, high, high], [high, high, low], [low, low, low], [
      low,
      low,
      low,
    ]];
    const { seen, history } = await simulate(gpu, losses);
    deepStrictEqual(seen.map((s) => s.active), [[1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]);
    deepStrictEqual(seen[2], { active: [0, 0, 0], taken: [1, 0, 2], bad: [0, 0, 0], step: 3, gate: 1 });
    // The gate swallows the rest: no step, no history.
    deepStrictEqual(seen[4], seen[2]);
    deepStrictEqual(history.slice(0, 18), losses.slice(0, 3).flat(2).map(Math.fround));
    deepStrictEqual(history.slice(18), Array(12).fill(0));
  }),
);

Deno.test(
  "stopRule() notes edit and step when a loss is not finite, and lets the others go on",
  withGpu(async (gpu) => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const { seen } = await simulate(gpu, [[[1, 1], [1, 1]], [[1, 1], [bad, 1]], [[1, 1], [1, 1]]], 9);
      deepStrictEqual(seen[1], { active: [1, 0], taken: [1, 1], bad: [0, 2], step: 2, gate: 0 }, `${bad}`);
      deepStrictEqual(seen[2], { active: [1, 0], taken: [2, 1], bad: [0, 2], step: 3, gate: 0 }, `${bad}`);
    }
  }),
);

Deno.test(
  "stopRule() finds a step that is not finite when only one of its later terms is",
  withGpu(async (gpu) => {
    const { seen } = await simulate(gpu, [[[0, 0, NaN]]], 3);
    deepStrictEqual(seen[0], { active: [0], taken: [0], bad: [1], step: 1, gate: 1 });
  }),
);

Deno.test(
  "sureRule() weakens the NLL of edits whose rows all say what is wanted, and stops those with a small KL",
  withGpu(async (gpu) => {
    const u32 = (label: string, values: number[]) =>
      fromHost(gpu, label, [values.length], Uint32Array.from(values));
    const edits = 5;
    const state = {
      // NLL and KL: edit 1's KL is small, edit 2 has stopped, edit 3 is not sure any more.
      terms: fromHost(gpu, "terms", [edits, 2], Float32Array.of(1, 0.5, 1, 0.01, 1, 0, 1, 0, 1, 0.02)),
      active: u32("active", [1, 1, 0, 1, 1]),
      history: createTensor(gpu, "history", [1, edits, 2]),
    } as StopState;
    const rows = {
      wanted: u32("wanted", [7, 8, 9, 7, 3, 3, 5]),
      best: u32("best", [7, 8, 9, 7, 3, 4, 6]),
      edit: u32("edit", [0, 0, 1, 2, 3, 3, 4]),
    };
    const nll = fromHost(gpu, "nll", [edits], Float32Array.of(1, 1, 1, 0.25, 1));
    const r = gpu.recorder();
    sureRule({ gpu, r }, rows, state, nll, { factor: 0.25, kl: 0.01 });
    using plan = r.finish("sure rule");
    plan.run();
    const [factors, active] = await readTensors(gpu, nll, state.active);
    deepStrictEqual([...factors], [0.25, 0.25, 1, 1, 1]);
    deepStrictEqual([...active], [1, 0, 0, 1, 1]);
    [...Object.values(state), ...Object.values(rows), nll].forEach((t: Tensor) => freeTensor(gpu, t));
  }),
);
