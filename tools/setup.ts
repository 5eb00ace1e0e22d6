/**
 * Makes this machine ready: looks for a WebGPU adapter and, on Debian and Ubuntu as root, installs the
 * software Vulkan driver when there is none. Everywhere else it says in one line what to install.
 *
 * ```sh
 * deno run -A tools/setup.ts
 * ```
 */
import { findAdapter, installHint } from "../engine/gpu/platform.ts";

const DRIVER = "mesa-vulkan-drivers";

/** Runs apt-get without questions; its output is kept for the case that it fails. */
function apt(...args: string[]): { ok: boolean; text: string } {
  const quiet = ["-qq", "-o", "DPkg::Lock::Timeout=300"];
  const { success, stdout, stderr } = new Deno.Command("apt-get", {
    args: [...quiet, ...args],
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).outputSync();
  const decoder = new TextDecoder();
  return { ok: success, text: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** Whether apt-get is there and may install. */
function mayInstall(): boolean {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  try {
    return apt("--version").ok;
  } catch {
    return false;
  }
}

/** Installs the driver; package lists are fetched only when the ones at hand do not do. */
function install(): void {
  console.error(`No GPU adapter was found: installing ${DRIVER}, a software Vulkan driver (about a minute)`);
  const command = ["install", "-y", "--no-install-recommends", DRIVER];
  if (apt(...command).ok) return;
  const update = apt("update");
  const { ok, text } = apt(...command);
  if (!ok) fail(`apt-get could not install ${DRIVER}: ${lastLine(text) || lastLine(update.text)}`);
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

function fail(message: string): never {
  console.error(message);
  Deno.exit(1);
}

/** Asks in a new process: this one may have looked for the Vulkan loader already, and remember its absence. */
function foundByNewProcess(): boolean {
  const args = ["run", "-A", import.meta.filename!, "--check"];
  return new Deno.Command(Deno.execPath(), { args, stdin: "null" }).outputSync().success;
}

if (import.meta.main && !await findAdapter()) {
  const missing = `No GPU adapter was found. ${installHint()}`;
  if (Deno.args.includes("--check") || !mayInstall()) fail(missing);
  install();
  if (!foundByNewProcess()) {
    fail(
      `${DRIVER} is installed, but there is still no GPU adapter: check VK_DRIVER_FILES and VK_ICD_FILENAMES`,
    );
  }
}
