import { deepStrictEqual, notDeepStrictEqual, ok, throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { checksum } from "../../../engine/ops/checksum.ts";
import { fill } from "../../../engine/ops/elementwise.ts";
import {
  createTensor,
  type Dtype,
  freeTensor,
  type Tensor,
  type TensorOptions,
} from "../../../engine/tensor/tensor.ts";
import { readTensors, writeBytes } from "../../../engine/tensor/transfer.ts";
import { evaluate, withGpu } from "../../_gpu.ts";

/** Finisher with shifts a, b, c around two products. */
const mix = (x: number, [a, p, b, q, c]: number[]) => {
  x = Math.imul(x ^ (x >>> a), p);
  x = Math.imul(x ^ (x >>> b), q);
  return (x ^ (x >>> c)) >>> 0;
};

/** The formula of checksum.wgsl. */
function reference(bytes: Uint8Array): [number, number] {
  const words = new Uint32Array(Math.ceil(bytes.length / 4));
  new Uint8Array(words.buffer).set(bytes);
  let a = 0, b = 0;
  words.forEach((word, i) => {
    a += mix(word ^ Math.imul(i, 0x9e3779b1), [16, 0x85ebca6b, 13, 0xc2b2ae35, 16]);
    b += mix(
      Math.imul(word, 0x2545f491) + Math.imul(i, 0x27220a95) | 0,
      [16, 0x7feb352d, 15, 0x846ca68b, 16],
    );
    [a, b] = [a >>> 0, b >>> 0];
  });
  return [a, b];
}

const noise = (n: number) => Uint8Array.from({ length: n }, (_, i) => (i * i * 31 + i * 7 + (i >> 8)) & 255);

function stored(gpu: Gpu, shape: number[], bytes: Uint8Array, options: TensorOptions): Tensor {
  const t = createTensor(gpu, "stored", shape, options);
  writeBytes(gpu, t, 0, bytes);
  return t;
}

async function sumsOf(gpu: Gpu, ...tensors: Tensor[]): Promise<number[][]> {
  const sums = createTensor(gpu, "sums", [tensors.length, 2], { dtype: "u32" });
  await evaluate(gpu, (ctx) => {
    fill(ctx, sums, 0);
    tensors.forEach((t, i) => checksum(ctx, t, sums, i));
    return [];
  });
  const [flat] = await readTensors(gpu, sums);
  freeTensor(gpu, sums);
  return tensors.map((_, i) => [flat[2 * i], flat[2 * i + 1]]);
}

Deno.test(
  "checksum() is what its formula says when sizes are odd, words are half filled and rows are sharded",
  withGpu(async (gpu) => {
    const cases: [Dtype, number[], number?][] = [
      ["f32", [1]],
      ["f16", [1]],
      ["bf16", [3, 5]],
      ["f16", [129, 63]],
      ["f32", [5, 3, 7]],
      // One workgroup takes 4096 words.
      ["f32", [4096]],
      ["u32", [4097]],
      ["f32", [67, 129]],
      ["f64", [3, 3]],
      ["f16", [129, 63], 63 * 2 * 10],
      ["f32", [67, 129], 129 * 4 * 12],
    ];
    for (const [dtype, shape, maxShardBytes] of cases) {
      const size = { f16: 2, bf16: 2, f32: 4, u32: 4, f64: 8 }[dtype];
      const bytes = noise(shape.reduce((a, b) => a * b) * size);
      const t = stored(gpu, shape, bytes, { dtype, maxShardBytes });
      ok(maxShardBytes === undefined || t.shards.length > 2, "The test wants several shards");
      deepStrictEqual(await sumsOf(gpu, t), [reference(bytes)], `${dtype} [${shape}] ${maxShardBytes}`);
      freeTensor(gpu, t);
    }
  }),
);

Deno.test(
  "checksum() changes with every bit and when words change places, not with what follows the tensor",
  withGpu(async (gpu) => {
    const bytes = noise(2 * 21);
    const make = (bytes: Uint8Array) => stored(gpu, [3, 7], bytes, { dtype: "f16" });
    const tensors = [make(bytes)];
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const changed = bytes.slice();
      changed[bit >> 3] ^= 1 << (bit & 7);
      tensors.push(make(changed));
    }
    const swapped = bytes.slice();
    swapped.set(bytes.subarray(4, 8), 12);
    swapped.set(bytes.subarray(12, 16), 4);
    tensors.push(make(swapped));
    const sums = await sumsOf(gpu, ...tensors);
    sums.slice(1).forEach((sum, i) => notDeepStrictEqual(sum, sums[0], `change ${i}`));
    // A longer buffer of the same beginning, seen as the same tensor.
    const long = stored(gpu, [4, 7], Uint8Array.from([...bytes, ...noise(14)]), { dtype: "f16" });
    const view = { ...long, shape: [3, 7], shards: [{ ...long.shards[0], rows: 3 }] };
    deepStrictEqual(await sumsOf(gpu, view), [sums[0]]);
    const ctx = { gpu, r: gpu.recorder() };
    throws(
      () => checksum(ctx, view, view, 0),
      /Cannot add the checksum of stored \[3, 7\] to row 0 of stored/,
    );
    [long, ...tensors].forEach((t) => freeTensor(gpu, t));
  }),
);
