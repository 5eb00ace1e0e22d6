/**
 * Errors of the compute runtime. WebGPU reports validation errors through an event that Deno drops
 * silently when nobody listens; here every one becomes an exception at the next wait.
 */

/** A failure of the adapter, a kernel, a buffer or a plan. `hint` says what to do when we know. */
export class GpuError extends Error {
  override name = "GpuError";
  constructor(message: string, readonly hint?: string, options?: ErrorOptions) {
    super(hint ? `${message}\n${hint}` : message, options);
  }
}

/** Collects the errors of one device until somebody waits. */
export class ErrorSink {
  #pending: string[] = [];
  #lost?: string;

  /** Listens to a device; call once, right after it was made. */
  listen(device: GPUDevice): void {
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#pending.push((event as GPUUncapturedErrorEvent).error.message);
    });
    device.lost.then((info) => {
      if (info.reason !== "destroyed") this.#lost = info.message || "no reason given";
    });
  }

  /** @throws {GpuError} the first error reported since the last call, naming kernel and tensors by their labels */
  check(): void {
    if (this.#lost) throw new GpuError(`The GPU device was lost: ${this.#lost}`);
    if (this.#pending.length === 0) return;
    const [first] = this.#pending;
    const more = this.#pending.length - 1;
    this.#pending = [];
    throw new GpuError(more > 0 ? `${first} (and ${more} more)` : first);
  }
}
