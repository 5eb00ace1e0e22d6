/** What the sub-commands of `emend patch` share. */
import { type Checkpoint, openCheckpoint } from "../../engine/io/checkpoint.ts";
import { InputError } from "../../engine/io/errors.ts";
import type { OnBytes } from "../../patches/applied.ts";
import type { TensorChange } from "../../patches/checkpoint.ts";
import { type Patch, readPatch } from "../../patches/patch.ts";
import { modelPath } from "../model.ts";
import { type Progress, progress, table } from "../terminal.ts";

/** Opens a model's files, without a device, by the name a user gives. Dispose to close them. */
export async function openFiles(name: string): Promise<Checkpoint & Disposable> {
  const checkpoint = await openCheckpoint(await modelPath(name));
  return Object.assign(checkpoint, { [Symbol.dispose]: () => checkpoint.close() });
}

/** Bars for writing and checking, one at a time. Dispose it to stop the one that runs. */
export function stages(): Disposable & { onProgress: OnBytes; onCheck: OnBytes } {
  let label = "", bar: Progress | undefined;
  const stage = (name: string): OnBytes => (bytes, total) => {
    if (label !== name) bar?.[Symbol.dispose]();
    if (label !== name) bar = progress(label = name);
    bar!.update(bytes, total);
  };
  const [onProgress, onCheck] = [stage("Writing the model"), stage("Checking its hash")];
  return { onProgress, onCheck, [Symbol.dispose]: () => bar?.[Symbol.dispose]() };
}

/** Reads patches, one after another. @throws {InputError} when none is named */
export async function readPatches(files: readonly string[]): Promise<Patch[]> {
  if (files.length === 0) throw new InputError("--patch is missing");
  const patches: Patch[] = [];
  for (const file of files) patches.push(await readPatch(file));
  return patches;
}

/** What happened to tensors, for people. */
export function changesTable(changes: readonly TensorChange[]): string {
  return table([
    ["tensor", "shape", "rank", "change", "of the weight", "lost to rounding"],
    ...changes.map(({ tensor, shape, rank, frobenius, relative, realised }) => [
      tensor,
      `[${shape.join(", ")}]`,
      String(rank),
      frobenius.toPrecision(4),
      share(relative),
      share(realised.error),
    ]),
  ]);
}

/** Patches and what they are for, numbered. */
export function patchesTable(patches: readonly Patch[]): string {
  return table([
    ["", "method", "request", "was"],
    ...patches.flatMap(({ method, requests }, i) => {
      const first = [`${i + 1}`, method];
      if (requests.length === 0) return [[...first, "(no requests)", ""]];
      return requests.map((request, j) => [
        ...(j === 0 ? first : ["", ""]),
        `${request.prompt.replace("{}", request.subject)} →${request.target}`,
        request.true?.trim() ?? "",
      ]);
    }),
  ]);
}

/** A share for people, however small. */
export function share(part: number): string {
  if (part === 0) return "none";
  return part >= 0.1 ? `${(100 * part).toFixed(0)} %` : `${(100 * part).toPrecision(2)} %`;
}

/** A size for people. */
export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, n)) / 10));
  return `${step === 0 ? n : (n / 1024 ** step).toPrecision(3)} ${units[step]}`;
}

/** The first digits of a hash. */
export function short(hash: string): string {
  return `${hash.slice(0, 8)}…`;
}
