import { deepStrictEqual, throws } from "node:assert/strict";
import { Tape } from "../../../engine/ops/context.ts";
import { embed, occurrences, uploadOccurrences } from "../../../engine/ops/embedding.ts";
import { fill } from "../../../engine/ops/elementwise.ts";
import { createTensor, freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32, writeBytes } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, normals, pack, ROUNDED } from "./_reference.ts";

const [V, D] = [11, 7];
const IDS = [3, 0, 10, 3, 3, 7];
const POSITIONS = [0, 1, 2, 0, 1, 0];
const u32 = (ids: number[]) => Uint32Array.from(ids);

/** Rows of `table` by id. */
function rowsOf(table: Float64Array, ids: number[]): Float64Array {
  return Float64Array.from(ids.flatMap((id) => [...table.subarray(id * D, (id + 1) * D)]));
}

Deno.test(
  "embed() copies rows exactly when the table is f32, f16 or bf16, in one buffer or in shards",
  withGpu(async (gpu) => {
    const ids = fromHost(gpu, "ids", [IDS.length], u32(IDS));
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      const host = normals(V * D, 1);
      const packed = dtype === "f32"
        ? { bytes: new Uint8Array(Float32Array.from(host).buffer), values: host }
        : pack(host, dtype);
      const whole = createTensor(gpu, "wte", [V, D], { dtype });
      const sharded = createTensor(gpu, "wte", [V, D], { dtype, maxShardBytes: 5 * D * 4 });
      [whole, sharded].forEach((t) => writeBytes(gpu, t, 0, packed.bytes));
      const [a, b] = await evaluate(gpu, (ctx) => [embed(ctx, ids, whole), embed(ctx, ids, sharded)]);
      const expected = Float32Array.from(rowsOf(packed.values, IDS));
      deepStrictEqual(a, expected, dtype);
      deepStrictEqual(b, expected, `${dtype} in ${sharded.shards.length} shards`);
      [whole, sharded].forEach((t) => freeTensor(gpu, t));
    }
    freeTensor(gpu, ids);
  }),
);

Deno.test(
  "embed() adds positions and gives both tables their gradients when rows repeat",
  withGpu(async (gpu) => {
    const ids = fromHost(gpu, "ids", [IDS.length], u32(IDS));
    const positions = fromHost(gpu, "positions", [IDS.length], u32(POSITIONS));
    const byId = uploadOccurrences(gpu, "ids", IDS);
    const byPosition = uploadOccurrences(gpu, "positions", POSITIONS);
    await checkOp(gpu, {
      inputs: {
        table: { shape: [V, D], values: normals(V * D, 1) },
        positionTable: { shape: [3, D], values: normals(3 * D, 2) },
      },
      op: (ctx, { table, positionTable }) =>
        embed(ctx, ids, table, {
          positions,
          positionTable,
          occurrences: byId,
          positionOccurrences: byPosition,
        }),
      reference: ({ table, positionTable }) => {
        const p = rowsOf(positionTable, POSITIONS);
        return rowsOf(table, IDS).map((v, i) => v + p[i]);
      },
      tolerance: dotTolerance(3),
    });
    [ids, positions, ...Object.values(byId), ...Object.values(byPosition)].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "embed() adds to a sharded gradient when one is given",
  withGpu(async (gpu) => {
    const ids = fromHost(gpu, "ids", [IDS.length], u32(IDS));
    const table = fromHost(gpu, "wte", [V, D], normals(V * D, 1));
    const into = createTensor(gpu, "d wte", [V, D], { maxShardBytes: 4 * D * 4 });
    const seed = normals(IDS.length * D, 3);
    const dy = fromHost(gpu, "dy", [IDS.length, D], seed);
    const mentions = uploadOccurrences(gpu, "ids", IDS);
    await evaluate(gpu, (ctx) => {
      fill(ctx, into, 1);
      ctx.tape!.require(table, into);
      const y = embed(ctx, ids, table, { occurrences: mentions });
      ctx.tape!.setGrad(y, dy);
      ctx.tape!.backward();
      return [y];
    });
    const expected = new Float64Array(V * D).fill(1);
    seed.forEach((v, i) => expected[IDS[Math.floor(i / D)] * D + i % D] += v);
    assertClose(await readF32(gpu, into), expected, 4 * ROUNDED, "d wte");
    [ids, table, into, dy, ...Object.values(mentions)].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test("occurrences() groups rows by id and pads when ids repeat", () => {
  deepStrictEqual(occurrences([5, 2, 5, 9, 2]), {
    offsets: u32([0, 2, 4, 5, 5, 5]),
    tokens: u32([2, 5, 9, 0, 0]),
    rows: u32([1, 4, 0, 2, 3]),
  });
});

Deno.test(
  "embed() asks for the occurrences when a table wants a gradient without them",
  withGpu((gpu) => {
    const ids = fromHost(gpu, "ids", [2], u32([0, 1]));
    const table = createTensor(gpu, "wte", [3, 2]);
    const tape = new Tape();
    const ctx = { gpu, r: gpu.recorder(), tape };
    tape.require(table);
    const y: Tensor = embed(ctx, ids, table);
    tape.setGrad(y, y);
    throws(() => tape.backward(), /gradient of wte \[3, 2\]: which rows mention which id is not given\nPass/);
    [ids, table].forEach((t) => freeTensor(gpu, t));
  }),
);
