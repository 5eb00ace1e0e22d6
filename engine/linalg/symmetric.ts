/**
 * The product of a symmetric matrix with f64 vectors on a device without f64: two-float numbers and
 * compensated dots, error near 2⁻⁴⁸·‖|A||x|‖. The diagonal is exact: what f32 cannot hold of it is added
 * on the host. On a device whose compiler breaks error-free transformations the whole product is the host's.
 */
import type { Gpu } from "../gpu/device.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import type { Plan } from "../gpu/plan.ts";
import { symmetricProduct } from "../kernels/linalg.ts";
import { zeroBuffer } from "./buffers.ts";
import type { Operator } from "./conjugate_gradients.ts";
import { symmetricTimes } from "./host.ts";
import { type Panels, rowBlocks } from "./panels.ts";
import { readLower } from "./tiny.ts";

/** Right-hand sides of one plan. */
const WIDTHS = [1, 4, 16, 32];

/** A symmetric matrix as an operator. `rest` is what the stored f32 diagonal lacks. */
export class SymmetricOperator {
  #gpu: Gpu;
  #hi: Panels;
  #lo?: Panels;
  #rest: Float64Array;
  #plans = new Map<number, { plan: Plan; x: GpuBuffer; y: GpuBuffer }>();
  #lower?: Promise<Float64Array>;

  constructor(gpu: Gpu, hi: Panels, lo: Panels | undefined, rest: Float64Array) {
    this.#gpu = gpu;
    this.#hi = hi;
    this.#lo = lo;
    this.#rest = rest;
  }

  /** Y = A X. */
  multiply: Operator = async (columns, m) => {
    const y = this.#gpu.numerics.compensated
      ? await this.#onDevice(columns, m)
      : symmetricTimes(await this.#onHost(), this.#hi.n, columns, m);
    const n = this.#hi.n;
    for (let i = 0; i < y.length; i++) y[i] += this.#rest[i % n] * columns[i];
    return y;
  };

  #onHost(): Promise<Float64Array> {
    const { n } = this.#hi;
    return this.#lower ??= readLower(this.#gpu, {
      n,
      real: "f32",
      weight: 1,
      blocks: rowBlocks(this.#hi, this.#lo),
    });
  }

  async #onDevice(columns: Float64Array, m: number): Promise<Float64Array> {
    const { n } = this.#hi;
    const y = new Float64Array(n * m);
    for (let first = 0; first < m; first += 32) {
      const count = Math.min(32, m - first);
      const width = WIDTHS.find((w) => w >= count)!;
      const { plan, x, y: out } = this.#prepare(width);
      const pairs = new Float32Array(2 * n * width);
      // Powers of two bring every column near 1, so that neither half leaves the range of f32.
      const sizes = Array.from(
        { length: count },
        (_, c) => powerOfTwo(columns.subarray((first + c) * n, (first + c + 1) * n)),
      );
      for (let c = 0; c < count; c++) {
        for (let i = 0; i < n; i++) {
          const v = columns[(first + c) * n + i] / sizes[c];
          const at = 2 * (i * width + c);
          pairs[at] = v;
          pairs[at + 1] = v - pairs[at];
        }
      }
      this.#gpu.upload(x, new Uint8Array(pairs.buffer));
      plan.run();
      const [raw] = await this.#gpu.read({ buffer: out, bytes: pairs.byteLength });
      const got = new Float32Array(raw);
      for (let c = 0; c < count; c++) {
        for (let i = 0; i < n; i++) {
          const at = 2 * (i * width + c);
          y[(first + c) * n + i] = (got[at] + got[at + 1]) * sizes[c];
        }
      }
    }
    return y;
  }

  #prepare(m: number): { plan: Plan; x: GpuBuffer; y: GpuBuffer } {
    const made = this.#plans.get(m);
    if (made) return made;
    const { n, label, panels } = this.#hi;
    const zero = zeroBuffer(this.#gpu);
    const x = this.#gpu.memory.alloc(8 * n * m, `${label} x`, "linalg");
    const y = this.#gpu.memory.alloc(8 * n * m, `${label} y`, "linalg");
    const r = this.#gpu.recorder();
    for (const MIRROR of [false, true]) {
      panels.forEach((panel, index) => {
        const panelEnd = Math.min(n, panel.row + panel.rows);
        const rowBegin = MIRROR ? 0 : panel.row;
        const rowEnd = MIRROR ? panelEnd - 1 : panelEnd;
        r.dispatch(symmetricProduct, {
          variant: { MIRROR, LO: this.#lo !== undefined },
          bind: { c: panel.storage, lo: this.#lo?.panels[index].storage ?? zero, x, y, zero },
          params: { m, rowBegin, rowEnd, panelRow: panel.row, panelEnd, panelLd: panel.ld },
          grid: [Math.ceil((rowEnd - rowBegin) * m / 64), 1, 1],
        });
      });
    }
    const plan = { plan: r.finish(`${label} product`), x, y };
    this.#plans.set(m, plan);
    return plan;
  }

  /** Frees plans and vectors; the panels stay. */
  dispose(): void {
    for (const { plan, x, y } of this.#plans.values()) {
      plan.dispose();
      [x, y].forEach((b) => this.#gpu.memory.free(b));
    }
    this.#plans.clear();
  }
}

/** The power of two near the largest element; 1 for a zero column. */
export function powerOfTwo(column: Float64Array): number {
  const most = column.reduce((s, v) => Math.max(s, Math.abs(v)), 0);
  return most > 0 ? 2 ** Math.ceil(Math.log2(most)) : 1;
}
