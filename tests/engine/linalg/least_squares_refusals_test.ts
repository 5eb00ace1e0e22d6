/** What solveLeastSquares() says when there is no answer, and that nothing stays allocated then. */
import { ok, rejects, strictEqual } from "node:assert/strict";
import { type LeastSquaresProblem, solveLeastSquares } from "../../../engine/linalg/least_squares.ts";
import { createTensor } from "../../../engine/tensor/tensor.ts";
import { normals } from "../ops/_reference.ts";
import { DEVICES } from "./_spd.ts";

Deno.test("solveLeastSquares() names the first column that depends on those before it", async () => {
  const rows = 200, cols = 70;
  for (const [device, route] of [["native", "f64"], ["single", "compensated"], ["native", "host"]] as const) {
    const gpu = await DEVICES[device]();
    const held = () => gpu.memory.owners().find(([owner]) => owner === "linalg")?.[1] ?? 0;
    await solveLeastSquares(gpu, { rows: 1, cols: 1, a: new Float32Array([2]), b: new Float32Array([1]) }, {
      route,
    });
    const before = held();
    const integers = Float32Array.from(normals(rows * cols, 4), (v) => Math.round(20 * v));
    const spoil = (at: number, of: (row: Float32Array) => number) => {
      const a = integers.slice();
      for (let i = 0; i < rows; i++) a[i * cols + at] = of(a.subarray(i * cols, (i + 1) * cols));
      return solveLeastSquares(gpu, { rows, cols, a, b: normals(rows, 1) }, { route });
    };
    const message = (at: number) =>
      new RegExp(
        `^GpuError: Cannot solve least squares: column ${at} of 70 depends on those before it(\\n|$)`,
      );
    await rejects(spoil(40, (row) => row[3]), message(40));
    await rejects(spoil(41, (row) => row[3] - 2 * row[7] + row[40]), message(41));
    await rejects(spoil(69, (row) => row.reduce((s, v) => s + v) - row[69]), message(69));
    // On the host a first column of zeros is as dependent.
    await rejects(spoil(0, () => 0), message(0));
    // A column that keeps 6e-5 of its length to itself is enough for an answer.
    const near = await spoil(50, (row) => row[3] + row[50] * 2 ** -14);
    ok(near.report.gradient <= 1e-10);
    strictEqual(held(), before);
    gpu.check();
  }
});

Deno.test("solveLeastSquares() refuses what has no answer, in one sentence", async () => {
  for (const [device, route] of [["native", "f64"], ["single", "compensated"], ["native", "host"]] as const) {
    const gpu = await DEVICES[device]();
    const a = Float32Array.of(1, 2, 3, 4, 5, 7);
    const good = { rows: 3, cols: 2, a, b: Float32Array.of(1, 2, 3) };
    const refused = (change: Partial<LeastSquaresProblem>, message: RegExp) =>
      rejects(solveLeastSquares(gpu, { ...good, ...change }, { route }), message);
    await refused(
      { rows: 1, cols: 6 },
      /^GpuError: Cannot solve least squares with 1 equations for 6 unknowns\n/,
    );
    await refused(
      { a: a.with(3, NaN) },
      /Cannot solve least squares: column 1 of 2 has a number that is not finite/,
    );
    await refused({ a: a.with(0, -Infinity) }, /column 0 of 2 has a number that is not finite/);
    await refused({ b: Float32Array.of(1, 2, 3, 4, NaN, 6), m: 2 }, /right-hand side 1 has NaN at 1/);
    await refused({ b: Float32Array.of(1, 2) }, /1 right-hand sides of 3 have 3 values, not 2/);
    await refused({ a: a.slice(1) }, /A \[3, 2\] has 6 values, not 5/);
    await refused({ lambda: -1 }, /with a lambda of -1/);
    await refused(
      { a: createTensor(gpu, "A", [2, 3]) },
      /A \[2, 3\] f32: an f32 matrix \[3, 2\] was expected/,
    );
    await refused({ a: createTensor(gpu, "A", [3, 2], { dtype: "bf16" }) }, /A \[3, 2\] bf16: an f32 matrix/);
    const storage = gpu.recorder().temp(24, "t");
    const temporary = {
      label: "T",
      shape: [3, 2],
      dtype: "f32" as const,
      shards: [{ storage, row: 0, rows: 3 }],
    };
    await refused({ a: temporary }, /T \[3, 2\]: it is a temporary of a plan/);
    gpu.check();
  }
  const single = await DEVICES.single();
  await rejects(
    solveLeastSquares(single, { rows: 1, cols: 1, a: Float32Array.of(1), b: Float32Array.of(1) }, {
      route: "f64",
    }),
    /Cannot solve least squares in f64: the device has no f64/,
  );
});
