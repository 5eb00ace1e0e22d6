import { deepStrictEqual } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { advanceQueries, advanceRows, type DecodeState } from "../../../engine/ops/decode.ts";
import { freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors, writeTensor } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";

const u32 = (gpu: Gpu, label: string, shape: number[], values: number[]) =>
  fromHost(gpu, label, shape, Uint32Array.from(values));

const read = async (gpu: Gpu, t: Tensor) => [...(await readTensors(gpu, t))[0]];

Deno.test(
  "advanceRows() moves every row one token on and notes it until its history is full",
  withGpu(async (gpu) => {
    // More rows than one workgroup of 64 has.
    const [rows, capacity] = [67, 3];
    const of = (f: (row: number) => number) => Array.from({ length: rows }, (_, row) => f(row));
    const start = of((row) => 1 + row % 5);
    const state: DecodeState = {
      next: u32(gpu, "next", [rows], of(() => 0)),
      start: u32(gpu, "start", [rows], start),
      ids: u32(gpu, "ids", [rows], of(() => 999)),
      positions: u32(gpu, "positions", [rows], start.map((s) => s - 1)),
      slots: u32(gpu, "slots", [rows], of((row) => 100 * row)),
      history: u32(gpu, "history", [rows, capacity], Array(rows * capacity).fill(7)),
    };
    const r = gpu.recorder();
    advanceRows({ gpu, r }, state, 64);
    using plan = r.finish("advance");
    const token = (row: number, step: number) => 10 * row + step;
    for (let step = 0; step < capacity + 1; step++) {
      writeTensor(gpu, state.next, Uint32Array.from(of((row) => token(row, step))));
      plan.run();
      deepStrictEqual(await read(gpu, state.ids), of((row) => token(row, step)));
      deepStrictEqual(await read(gpu, state.positions), start.map((s) => s + step));
      deepStrictEqual(await read(gpu, state.slots), of((row) => 100 * row + step + 1));
      const noted = (row: number, at: number) => at <= step ? token(row, at) : 7;
      deepStrictEqual(
        await read(gpu, state.history),
        of((row) => row).flatMap((row) => Array.from({ length: capacity }, (_, at) => noted(row, at))),
      );
    }
    Object.values(state).forEach((t: Tensor) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "advanceRows() leaves a row alone when it is at the end of the context",
  withGpu(async (gpu) => {
    const one = (label: string, value: number) => u32(gpu, label, [1], [value]);
    const state: DecodeState = {
      ...{ next: one("next", 5), start: one("start", 6), ids: one("ids", 1), positions: one("positions", 5) },
      ...{ slots: one("slots", 30), history: u32(gpu, "history", [1, 4], [0, 0, 0, 0]) },
    };
    const r = gpu.recorder();
    advanceRows({ gpu, r }, state, 8);
    using plan = r.finish("advance");
    plan.run(4);
    const { ids, positions, slots, history } = state;
    const now = await readTensors(gpu, ids, positions, slots, history);
    deepStrictEqual(now.map((t) => [...t]), [[5], [7], [32], [5, 5, 0, 0]]);
    Object.values(state).forEach((t: Tensor) => freeTensor(gpu, t));
  }),
);

/** What the row at `position` sees: positions below `shared` lie from slot 1 on, the others from slot 50 on. */
function visible(position: number, shared: number, window: number): number[] {
  const slots: number[] = [];
  for (let p = Math.max(0, position - window + 1); p <= position; p++) {
    slots.push(p < shared ? 1 + p : 50 + p - shared);
  }
  return slots;
}

const slotsOf = ([shared, sharedCount, own, ownCount]: number[]) => [
  ...Array.from({ length: sharedCount }, (_, i) => shared + i),
  ...Array.from({ length: ownCount }, (_, i) => own + i),
];

Deno.test(
  "advanceQueries() lets the window slide over shared and own slots when sequences differ in length",
  withGpu(async (gpu) => {
    const starts = [{ at: 0, shared: 0 }, { at: 2, shared: 2 }, { at: 5, shared: 5 }, { at: 6, shared: 0 }];
    for (const window of [undefined, 1, 4, 20]) {
      const first = starts.flatMap(({ at, shared }) => {
        const low = Math.max(0, at - (window ?? Infinity) + 1);
        const sharedCount = Math.max(0, shared - low);
        return [1 + low, sharedCount, 50 + Math.max(low, shared) - shared, at - Math.max(low, shared) + 1];
      });
      const queries = u32(gpu, "queries", [starts.length, 4], first);
      const r = gpu.recorder();
      advanceQueries({ gpu, r }, queries, window);
      using plan = r.finish("advance");
      for (let step = 1; step <= 9; step++) {
        plan.run();
        const now = await read(gpu, queries);
        starts.forEach(({ at, shared }, row) => {
          const slots = slotsOf(now.slice(4 * row, 4 * row + 4));
          const expected = visible(at + step, shared, window ?? Infinity);
          deepStrictEqual(slots, expected, `row ${row}, step ${step}, window ${window}`);
        });
      }
      freeTensor(gpu, queries);
    }
  }),
);
