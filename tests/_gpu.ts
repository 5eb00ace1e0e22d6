/**
 * The device that tests share, and the two ways to run ops on it: `evaluate` records, runs and reads;
 * `checkOp` holds an op's forward and backward against a plain f64 function.
 */
import { deepStrictEqual } from "node:assert/strict";
import { Gpu } from "../engine/gpu/device.ts";
import { type Ctx, Tape } from "../engine/ops/context.ts";
import { copy, fill } from "../engine/ops/elementwise.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";
import { assertClose, finiteDifference, normals } from "./engine/ops/_reference.ts";

let shared: Promise<Gpu> | undefined;

/** Makes a test body that gets the process's one device. It is never closed: the process ends soon. */
export function withGpu(body: (gpu: Gpu) => Promise<void> | void): () => Promise<void> {
  return async () => {
    const gpu = await (shared ??= Gpu.open());
    await body(gpu);
    gpu.check();
  };
}

/** The context with a device that says it is a GPU, so that ops choose the workgroup sizes of GPUs. */
export function asGpuClass(ctx: Ctx): Ctx {
  return { ...ctx, gpu: Object.create(ctx.gpu, { class: { value: "gpu" } }) };
}

/** Runs what `record` records, twice, and reads the f32 tensors it returns; both runs agree in all bits. */
export async function evaluate(gpu: Gpu, record: (ctx: Ctx) => Tensor[]): Promise<Float32Array[]> {
  const r = gpu.recorder();
  const ctx: Ctx = { gpu, r, tape: new Tape() };
  const made = record(ctx);
  const kept = made.map((t) => createTensor(gpu, `kept ${t.label}`, t.shape));
  made.forEach((t, i) => copy({ gpu, r }, t, kept[i]));
  using plan = r.finish("test");
  plan.run();
  const first = await readTensors(gpu, ...kept);
  plan.run();
  const second = await readTensors(gpu, ...kept);
  kept.forEach((t) => freeTensor(gpu, t));
  deepStrictEqual(second, first, "A replay changed bits");
  return first as Float32Array[];
}

/** An input of {@link checkOp}. */
export interface Input {
  shape: number[];
  values: Float64Array;
}

/** An op and what it should compute. */
export interface OpCase {
  inputs: Record<string, Input>;
  op: (ctx: Ctx, t: Record<string, Tensor>) => Tensor;
  /** The same in f64, from the inputs' values. */
  reference: (values: Record<string, Float64Array>) => Float64Array;
  /** Inputs whose gradient is checked; default all. */
  wants?: string[];
  /** Of {@link assertClose}. */
  tolerance: number;
  label?: string;
}

/**
 * Checks y against the reference, each gradient of Σ dy·y against finite differences of it, the same
 * gradients added to ones, and that replays agree bit for bit: one plan, two runs.
 */
export async function checkOp(
  gpu: Gpu,
  { inputs, op, reference, tolerance, ...rest }: OpCase,
): Promise<void> {
  const { wants = Object.keys(inputs), label = "" } = rest;
  const values = Object.fromEntries(Object.entries(inputs).map(([name, i]) => [name, i.values]));
  const expected = reference(values);
  const seed = normals(expected.length, 99);
  const tensors = Object.fromEntries(
    Object.entries(inputs).map(([name, i]) => [name, fromHost(gpu, name, i.shape, i.values)]),
  );
  const dy = fromHost(gpu, "dy", [seed.length], seed);
  const into = wants.map((name) => createTensor(gpu, `d ${name}`, inputs[name].shape));
  const [y, ...grads] = await evaluate(gpu, (ctx) => {
    const y = op(ctx, tensors);
    const gradients = [undefined, into].flatMap((targets) => {
      const tape = new Tape();
      wants.forEach((name, i) => tape.require(tensors[name], targets?.[i]));
      targets?.forEach((t) => fill(ctx, t, 1));
      const y = op({ ...ctx, tape }, tensors);
      tape.setGrad(y, reshape(dy, y.shape));
      tape.backward();
      return wants.map((name) => tape.grad(tensors[name])!);
    });
    return [y, ...gradients];
  });
  assertClose(y, expected, tolerance, `${label} y`);
  wants.forEach((name, i) => {
    const loss = (x: Float64Array) => {
      const out = reference({ ...values, [name]: x });
      return out.reduce((sum, v, j) => sum + v * seed[j], 0);
    };
    const gradient = finiteDifference(loss, values[name]);
    assertClose(grads[i], gradient, tolerance, `${label} d ${name}`);
    assertClose(grads[wants.length + i], gradient.map((g) => g + 1), tolerance, `${label} 1 + d ${name}`);
  });
  [dy, ...into, ...Object.values(tensors)].forEach((t) => freeTensor(gpu, t));
}
