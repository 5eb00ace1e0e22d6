/**
 * Recorder: takes dispatches in order, checks them while their author is still on the stack, and finishes
 * into a {@link Plan}. Temporary buffers are virtual until then; liveness decides which of them share memory.
 */
import { GpuError } from "./errors.ts";
import type { Gpu } from "./device.ts";
import { type Kernel, resolveVariant, splitBinding, type Variant } from "./kernel.ts";
import type { GpuBuffer, Storage, VirtualBuffer } from "./memory.ts";
import { Plan, type Step } from "./plan.ts";

/** Workgroup counts. A count above 65,535 in x is folded into y by {@link foldGrid}. */
export type Grid = readonly [x: number, y: number, z: number];

/** What one dispatch needs beside its kernel. */
export interface Dispatch {
  variant?: Variant;
  bind: Record<string, Storage>;
  params?: Record<string, number>;
  grid: Grid;
}

/** Records dispatches of one plan. */
export class Recorder {
  readonly gpu: Gpu;
  #steps: Step[] = [];
  #lives = new Map<VirtualBuffer, { first: number; last: number }>();
  #gate?: Storage;
  #finished = false;

  constructor(gpu: Gpu) {
    this.gpu = gpu;
  }

  /** Dispatches recorded so far. */
  get length(): number {
    return this.#steps.length;
  }

  /** A temporary buffer that lives from its first write to its last use in this plan. */
  temp(bytes: number, label: string): VirtualBuffer {
    return { kind: "virtual", bytes: Math.max(16, Math.ceil(bytes / 16) * 16), label };
  }

  /** Records with a gate: these dispatches do nothing while the gate's first word is not zero. */
  gated<T>(gate: Storage | undefined, record: () => T): T {
    const outer = this.#gate;
    this.#gate = gate;
    try {
      return record();
    } finally {
      this.#gate = outer;
    }
  }

  /** @throws {GpuError} on a missing or unknown binding, an overlap, a read before any write, a grid over limits */
  dispatch(kernel: Kernel, { variant, bind, params = {}, grid }: Dispatch): void {
    if (this.#finished) throw new GpuError("Cannot record into a finished plan");
    const names = Object.keys(kernel.bindings);
    for (const name of Object.keys(bind)) {
      if (!(name in kernel.bindings)) throw new GpuError(`Kernel ${kernel.name} has no binding "${name}"`);
    }
    const index = this.#steps.length;
    const storages: Storage[] = [];
    const written = new Set<Storage>();
    for (const name of names) {
      const storage = bind[name];
      if (!storage) throw new GpuError(`Kernel ${kernel.name} misses its binding "${name}"`);
      const [access] = splitBinding(kernel.bindings[name]);
      if (storage.kind === "virtual") this.#touch(storage, access, index, kernel.name);
      if (access !== "read") written.add(storage);
      storages.push(storage);
    }
    const gate = this.#gate;
    if (gate && !written.has(gate)) {
      if (gate.kind === "virtual") this.#touch(gate, "read", index, kernel.name);
      storages.push(gate);
    }
    for (const storage of written) {
      const uses = storages.filter((s) => s === storage).length;
      if (uses > 1) {
        throw new GpuError(`Kernel ${kernel.name} binds ${storage.label} ${uses} times and writes it`);
      }
    }
    for (const name of Object.keys(kernel.params)) {
      if (!Number.isFinite(params[name])) {
        throw new GpuError(`Kernel ${kernel.name} misses its parameter "${name}" (got ${params[name]})`);
      }
    }
    const max = this.gpu.limits.maxComputeWorkgroupsPerDimension;
    if (grid.some((n) => !Number.isInteger(n) || n < 0 || n > max)) {
      throw new GpuError(
        `Kernel ${kernel.name} has the grid ${grid.join("×")}; the limit is ${max} a dimension`,
      );
    }
    if (grid[0] * grid[1] * grid[2] === 0) return;
    this.#steps.push({
      kernel,
      variant: resolveVariant(kernel, variant),
      gated: storages.length > names.length,
      storages,
      params,
      grid,
    });
  }

  /** Gives the temporaries memory and builds bind groups and the uniform block: nothing is left for replay. */
  finish(label = "plan"): Plan {
    if (this.#finished) throw new GpuError(`Cannot finish ${label}: its recorder was finished already`);
    this.#finished = true;
    const { placed, owned } = this.#place();
    try {
      return new Plan(this.gpu, label, this.#steps, placed, owned);
    } catch (error) {
      owned.forEach((buffer) => this.gpu.memory.give(buffer));
      throw error;
    }
  }

  #touch(storage: VirtualBuffer, access: string, index: number, kernel: string): void {
    const life = this.#lives.get(storage);
    if (life) life.last = index;
    else if (access !== "write") {
      throw new GpuError(`Kernel ${kernel} reads ${storage.label} before anything wrote it`);
    } else this.#lives.set(storage, { first: index, last: index });
  }

  /** Greedy assignment in order of first use; a buffer returns to the free list after its last use. */
  #place(): { placed: Map<VirtualBuffer, GpuBuffer>; owned: GpuBuffer[] } {
    const memory = this.gpu.memory;
    const placed = new Map<VirtualBuffer, GpuBuffer>();
    const owned = new Set<GpuBuffer>();
    const endings: VirtualBuffer[][] = Array.from({ length: this.#steps.length }, () => []);
    for (const [v, life] of this.#lives) endings[life.last].push(v);
    const starts: VirtualBuffer[][] = Array.from({ length: this.#steps.length }, () => []);
    for (const [v, life] of this.#lives) starts[life.first].push(v);
    for (let i = 0; i < this.#steps.length; i++) {
      for (const v of starts[i]) {
        const buffer = memory.take(v.bytes);
        owned.add(buffer);
        placed.set(v, buffer);
      }
      for (const v of endings[i]) memory.give(placed.get(v)!);
    }
    // All of them belong to the plan until it is disposed: take them out of the pool again.
    memory.withdraw(owned);
    return { placed, owned: [...owned] };
  }
}

/** Folds a one-dimensional count of workgroups into x·y; kernels check the linear index. */
export function foldGrid(count: number, limit = 65535): Grid {
  if (count <= limit) return [count, 1, 1];
  const y = Math.ceil(count / limit);
  return [Math.ceil(count / y), y, 1];
}
