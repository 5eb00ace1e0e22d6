/**
 * What differs between the places the engine runs in: how an adapter is found, which features it grants
 * beyond those it lists, and what to install when there is none. Everything else is plain WebGPU.
 */
import { GpuError } from "./errors.ts";
import type { Feature } from "./kernel.ts";

/** The system, "browser" outside Deno. */
function system(): string {
  return (globalThis as { Deno?: typeof Deno }).Deno?.build.os ?? "browser";
}

/** What to do when no adapter was found, in one line. */
export function installHint(os: string = system()): string {
  if (os === "browser") return "Use a browser with WebGPU, and switch its hardware acceleration on";
  if (os === "darwin") {
    return "WebGPU runs on Metal here: use macOS 10.15 or later, outside of a virtual machine";
  }
  if (os === "windows") return "Install the GPU's driver, with DirectX 12 or Vulkan 1.2";
  return "Install a GPU driver, or the software one: apt-get install mesa-vulkan-drivers (Debian, Ubuntu), " +
    "dnf install mesa-vulkan-drivers (Fedora), pacman -S vulkan-swrast (Arch)";
}

/** The best adapter there is: GPUs first, then software drivers; null when there is none. */
export async function findAdapter(): Promise<GPUAdapter | null> {
  if (!navigator.gpu) return null;
  return await quietly(() => navigator.gpu.requestAdapter({ powerPreference: "high-performance" }));
}

/** As {@link findAdapter}. @throws {GpuError} when there is none, saying what to install */
export async function requestAdapter(): Promise<GPUAdapter> {
  const adapter = await findAdapter();
  if (!adapter) throw new GpuError("No GPU adapter was found, not even a software one", installHint());
  return adapter;
}

/** Whether the device grants a feature. Deno hides native ones in `adapter.features`: try. */
export async function grants(feature: Feature): Promise<boolean> {
  const adapter = await requestAdapter();
  try {
    const device = await adapter.requestDevice({ requiredFeatures: [feature as GPUFeatureName] });
    device.destroy();
    return true;
  } catch {
    return false;
  }
}

/** Software drivers such as llvmpipe. */
export function isSoftware(info: GPUAdapterInfo): boolean {
  const fallback = (info as unknown as { isFallbackAdapter?: boolean }).isFallbackAdapter;
  return fallback === true || /llvmpipe|lavapipe|swiftshader|softpipe/i.test(info.description);
}

/** Drivers complain on stderr, once a request, when this variable is missing; headless machines miss it. */
async function quietly<T>(request: () => Promise<T>): Promise<T> {
  if (system() !== "linux") return await request();
  const name = "XDG_RUNTIME_DIR";
  const allowed = (await Deno.permissions.query({ name: "env", variable: name })).state === "granted";
  if (!allowed || Deno.env.has(name)) return await request();
  Deno.env.set(name, "/tmp");
  try {
    return await request();
  } finally {
    Deno.env.delete(name);
  }
}
