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
  return await inEnvironment(() => navigator.gpu.requestAdapter({ powerPreference: "high-performance" }));
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

/**
 * What the environment should say while an adapter is requested, where it says nothing. Without Vulkan, Deno
 * falls back to OpenGL, which promises subgroups that do not compile; and on headless machines drivers
 * complain on stderr about a missing runtime folder.
 */
const ENVIRONMENT: Record<string, string> = {
  DENO_WEBGPU_BACKEND: "vulkan,metal,dx12",
  XDG_RUNTIME_DIR: "/tmp",
};

async function inEnvironment<T>(request: () => Promise<T>): Promise<T> {
  if (system() === "browser") return await request();
  const mine: string[] = [];
  for (const [name, value] of Object.entries(ENVIRONMENT)) {
    const { state } = await Deno.permissions.query({ name: "env", variable: name });
    if (state !== "granted" || Deno.env.has(name)) continue;
    Deno.env.set(name, value);
    mine.push(name);
  }
  try {
    return await request();
  } finally {
    mine.forEach((name) => Deno.env.delete(name));
  }
}
