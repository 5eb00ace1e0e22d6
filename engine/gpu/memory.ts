/**
 * Buffers with explicit lifetime, and the ledger that knows who holds how much. JavaScript's garbage
 * collector does not see GPU memory, so every buffer has an owner that frees it.
 */
import { GpuError } from "./errors.ts";

/** A buffer on the device. `owner` groups the ledger: callers name their purposes. */
export interface GpuBuffer {
  readonly kind: "buffer";
  readonly gpu: GPUBuffer;
  readonly bytes: number;
  readonly label: string;
  readonly owner: string;
}

/** A buffer of a plan under construction: it gets real memory when the plan is finished. */
export interface VirtualBuffer {
  readonly kind: "virtual";
  readonly bytes: number;
  readonly label: string;
}

/** What a kernel is bound to: a whole buffer, real or virtual. */
export type Storage = GpuBuffer | VirtualBuffer;

const MiB = 1024 * 1024;

/** Formats a byte count for people, in MiB. */
export function formatBytes(bytes: number): string {
  return bytes < MiB ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / MiB).toFixed(1)} MiB`;
}

/** Allocation, pooling and accounting of one device's memory. */
export class Memory {
  #device: GPUDevice;
  #live = new Set<GpuBuffer>();
  #pool = new Map<number, GpuBuffer[]>();
  #byOwner = new Map<string, number>();
  #now = 0;
  #peak = 0;
  /** Buffers created since the device was opened; a replay must not change it. */
  created = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Bytes held now, pooled buffers included. */
  get now(): number {
    return this.#now;
  }

  /** The largest `now` since the last `resetPeak()`. */
  get peak(): number {
    return this.#peak;
  }

  /** Starts a new measurement of the peak. */
  resetPeak(): void {
    this.#peak = this.#now;
  }

  /** Bytes held by owner, largest first. */
  owners(): [owner: string, bytes: number][] {
    return [...this.#byOwner].filter(([, bytes]) => bytes > 0).sort((a, b) => b[1] - a[1]);
  }

  /**
   * Creates a storage buffer; its content is zero.
   * @throws {GpuError} when it is larger than the device allows
   */
  alloc(bytes: number, label: string, owner: string, usage = 0): GpuBuffer {
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    if (size > this.#limit()) {
      throw new GpuError(
        `Cannot allocate ${label}: ${formatBytes(size)} is over the device's limit of ` +
          formatBytes(this.#limit()),
        "Split it into row shards",
      );
    }
    // UNIFORM, because any buffer may become a gate.
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST } = GPUBufferUsage;
    this.#device.pushErrorScope("out-of-memory");
    const gpu = this.#device.createBuffer({
      label,
      size,
      usage: usage || STORAGE | UNIFORM | COPY_SRC | COPY_DST,
    });
    this.#device.popErrorScope().then((error) => {
      if (error) this.outOfMemory = this.#outOfMemoryText(label, size);
    });
    const buffer: GpuBuffer = { kind: "buffer", gpu, bytes: size, label, owner };
    this.created++;
    this.#live.add(buffer);
    this.#account(owner, size);
    return buffer;
  }

  /** Set when an allocation failed; the next wait throws it. */
  outOfMemory?: string;

  /** Destroys a buffer. Freeing twice is a bug and throws. */
  free(buffer: GpuBuffer): void {
    if (!this.#live.delete(buffer)) throw new GpuError(`Cannot free ${buffer.label}: it is not alive`);
    this.#account(buffer.owner, -buffer.bytes);
    buffer.gpu.destroy();
  }

  /** Takes a buffer of at least `bytes` from the pool of temporaries, or creates one. */
  take(bytes: number): GpuBuffer {
    const limit = Math.floor(this.#limit() / 16) * 16;
    const size = bytes > limit ? bytes : Math.min(sizeClass(bytes), limit);
    const free = this.#pool.get(size);
    if (free?.length) return free.pop()!;
    return this.alloc(size, `temporary ${size}`, "temporaries");
  }

  /** Gives a pooled buffer back. */
  give(buffer: GpuBuffer): void {
    const free = this.#pool.get(buffer.bytes) ?? [];
    free.push(buffer);
    this.#pool.set(buffer.bytes, free);
  }

  /** Takes these buffers out of the pool: somebody owns them now. */
  withdraw(buffers: Set<GpuBuffer>): void {
    for (const [size, free] of this.#pool) this.#pool.set(size, free.filter((b) => !buffers.has(b)));
  }

  /** Destroys what lies unused in the pool. */
  trim(): void {
    for (const free of this.#pool.values()) free.forEach((b) => this.free(b));
    this.#pool.clear();
  }

  /** The largest buffer that can be bound whole. */
  #limit(): number {
    const { maxBufferSize, maxStorageBufferBindingSize } = this.#device.limits;
    return Math.min(maxBufferSize, maxStorageBufferBindingSize);
  }

  #account(owner: string, bytes: number): void {
    this.#byOwner.set(owner, (this.#byOwner.get(owner) ?? 0) + bytes);
    this.#now += bytes;
    this.#peak = Math.max(this.#peak, this.#now);
  }

  #outOfMemoryText(label: string, bytes: number): string {
    const top = this.owners().slice(0, 3).map(([o, b]) => `${o} ${formatBytes(b)}`).join(", ");
    return `Out of device memory at ${label} (${formatBytes(bytes)}); ` +
      `${formatBytes(this.#now)} are held: ${top}`;
  }
}

/** Rounds up to 2^k or 3·2^(k-1) bytes so that pooled buffers recur; at most a third is wasted. */
export function sizeClass(bytes: number): number {
  let size = 256;
  while (size < bytes) {
    if (size * 1.5 >= bytes) return size * 1.5;
    size *= 2;
  }
  return size;
}
