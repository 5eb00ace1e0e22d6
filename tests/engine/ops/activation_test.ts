import { ok, throws } from "node:assert/strict";
import { type Activation, activation, gated } from "../../../engine/ops/activation.ts";
import { ACTIVATIONS } from "../../../engine/kernels/activation.ts";
import { add } from "../../../engine/ops/elementwise.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, ELEMENTWISE, normals } from "./_reference.ts";

const sigmoid = (z: number) => 1 / (1 + Math.exp(-z));

/** erf(x) = 2/√π e^(−x²) Σ 2ⁿ x^(2n+1)/(2n+1)!!: all terms of one sign, so nothing cancels. */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 200; n++) sum += term *= 2 * x * x / (2 * n + 1);
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}

const REFERENCE: Record<Activation, (x: number) => number> = {
  gelu_new: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  silu: (x) => x * sigmoid(x),
  relu: (x) => Math.max(x, 0),
  quick_gelu: (x) => x * sigmoid(1.702 * x),
};

/** Around the workgroup of 256, and a prime. */
const SIZES = [1, 255, 256, 257, 769];

/** Both sides of every kink and far out, but no value within a finite difference of relu's corner. */
function values(n: number, seed: number): Float64Array {
  return normals(n, seed, 2).map((x) => Math.abs(x) < 0.01 ? 0.01 : x);
}

for (const kind of ACTIVATIONS) {
  Deno.test(
    `activation() equals the f64 formula of ${kind} and its differences when sizes are odd`,
    withGpu(async (gpu) => {
      for (const n of kind === "silu" ? SIZES : [257]) {
        await checkOp(gpu, {
          inputs: { x: { shape: [1, n], values: values(n, n) } },
          op: (ctx, { x }) => activation(ctx, x, kind),
          reference: ({ x }) => x.map(REFERENCE[kind]),
          tolerance: ELEMENTWISE,
          label: `${n} elements`,
        });
      }
    }),
  );

  Deno.test(
    `gated() equals the f64 formula of ${kind} and its differences when sizes are odd`,
    withGpu(async (gpu) => {
      for (const n of kind === "silu" ? SIZES : [67]) {
        await checkOp(gpu, {
          inputs: {
            gate: { shape: [1, n], values: values(n, n) },
            up: { shape: [1, n], values: normals(n, n + 1) },
          },
          op: (ctx, { gate, up }) => gated(ctx, gate, up, kind),
          reference: ({ gate, up }) => gate.map((z, i) => REFERENCE[kind](z) * up[i]),
          tolerance: ELEMENTWISE,
          label: `${n} elements`,
        });
      }
    }),
  );
}

Deno.test(
  "activation() is accurate near 0, in the tails and finite far out",
  withGpu(async (gpu) => {
    const tiny = [1e-6, 1e-4, 3e-3, 9e-3].flatMap((x) => [x, -x]);
    const tails = Array.from({ length: 101 }, (_, i) => (i - 50) / 10);
    const host = Float64Array.from([...tiny, ...tails], Math.fround);
    const far = Float64Array.from([-3e4, -200, -90, 90, 200, 3e4]);
    const x = fromHost(gpu, "x", [1, host.length], host);
    const z = fromHost(gpu, "z", [1, far.length], far);
    for (const kind of ACTIVATIONS) {
      const [y, yFar] = await evaluate(gpu, (ctx) => [activation(ctx, x, kind), activation(ctx, z, kind)]);
      host.forEach((v, i) => {
        // Relative to each value: small inputs, where the result is x/2, may not lose digits.
        const expected = REFERENCE[kind](v);
        const allowed = ELEMENTWISE * Math.max(Math.abs(expected), Math.abs(v) < 0.01 ? 0 : 0.1);
        ok(Math.abs(y[i] - expected) <= allowed, `${kind}(${v}) is ${y[i]}, expected ${expected}`);
      });
      assertClose(yFar, [0, 0, 0, 90, 200, 3e4], 1e-6, `${kind} far out`);
    }
    [x, z].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "activation() adds to a gradient that others hold without touching theirs when its input is also added",
  withGpu(async (gpu) => {
    await checkOp(gpu, {
      inputs: { x: { shape: [3, 5], values: normals(15, 8) } },
      op: (ctx, { x }) => add(ctx, x, activation(ctx, x, "silu")),
      reference: ({ x }) => x.map((v) => v + REFERENCE.silu(v)),
      tolerance: ELEMENTWISE,
    });
  }),
);

Deno.test(
  "gated() names both tensors when their sizes differ",
  withGpu((gpu) => {
    const [gate, up] = [createTensor(gpu, "gate", [2, 8]), createTensor(gpu, "up", [2, 7])];
    const ctx = { gpu, r: gpu.recorder() };
    throws(
      () => gated(ctx, gate, up, "silu"),
      /Cannot gate up \[2, 7\] by gate \[2, 8\]: their sizes differ/,
    );
    [gate, up].forEach((t) => freeTensor(gpu, t));
  }),
);
