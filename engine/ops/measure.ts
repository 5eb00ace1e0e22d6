/** How fast this device multiplies: a short measurement for time estimates and `doctor`. */
import type { Gpu } from "../gpu/device.ts";
import { createTensor, freeTensor } from "../tensor/tensor.ts";
import { matmul } from "./matmul.ts";

/** FLOP/s of [rows, width] · [4·width, width]ᵀ in f32, about 0.2 s after a warm-up. Waits. */
export async function measureMatmul(
  gpu: Gpu,
  { rows, width }: { rows: number; width: number },
): Promise<number> {
  const a = createTensor(gpu, "measure a", [rows, width]);
  const b = createTensor(gpu, "measure b", [4 * width, width]);
  const c = createTensor(gpu, "measure c", [rows, 4 * width]);
  try {
    const r = gpu.recorder();
    matmul({ gpu, r }, "nt", a, b, c);
    using plan = r.finish("measure");
    plan.run();
    await gpu.sync();
    const start = performance.now();
    plan.run();
    await gpu.sync();
    const once = Math.max(0.1, performance.now() - start - 11);
    const times = Math.max(1, Math.min(2000, Math.round(200 / once)));
    const again = performance.now();
    plan.run(times);
    await gpu.sync();
    return 2 * rows * width * 4 * width * times / ((performance.now() - again) / 1000);
  } finally {
    [a, b, c].forEach((t) => freeTensor(gpu, t));
  }
}
