/**
 * Reads run folders. A torn last line, which a kill leaves behind, does not count; anything else that is wrong
 * is said with its file and line. A folder of shards ("shard-1-of-3", …) stands for all of them.
 */
import { join } from "node:path";
import { InputError } from "../../engine/io/errors.ts";
import type { CaseLine, RetainedLine, RunConfig, Summary } from "../records.ts";
import { summarise } from "../summarise.ts";
import { mergeShards } from "./merge.ts";
import { checkCaseLine, checkConfig, checkRetainedLine } from "./schema.ts";

/** What one folder holds. */
export interface Folder {
  path: string;
  config: RunConfig;
  lines: CaseLine[];
  retained?: RetainedLine[];
  /** Wall-clock seconds, where the run has ended. */
  total_s?: number;
}

/** A run: of one folder, or of the shards that make it whole. */
export interface Run {
  paths: string[];
  /** Without `shard`. */
  config: RunConfig;
  lines: CaseLine[];
  retained?: RetainedLine[];
  /** Made anew from the lines. */
  summary: Summary;
  /** Cases of `config.indices` that are not there, or were not read again after the last edit. */
  missing: number;
}

/**
 * Reads runs and merges shards.
 * @param options `partial`: show runs that have not come to their end
 * @throws {InputError} naming what is wrong, with file and line
 */
export async function loadRuns(
  paths: readonly string[],
  options: { partial?: boolean } = {},
): Promise<Run[]> {
  const folders: Folder[] = [];
  const seen = new Map<string, string>();
  for (const path of (await Promise.all(paths.map(withShards))).flat()) {
    const real = await Deno.realPath(path).catch(() => path);
    if (seen.has(real)) throw new InputError(`${path} is given twice`);
    seen.set(real, path);
    folders.push(await readFolder(path));
  }
  return mergeShards(folders, options.partial === true).map(({ paths, total_s, missing, ...run }) => ({
    paths,
    ...run,
    missing,
    summary: summarise(run.config, run.lines, run.retained, { total_s }),
  }));
}

/** The folder itself, or the shards in it where it is no run. */
async function withShards(path: string): Promise<string[]> {
  if (await Deno.stat(join(path, "config.json")).then(() => true, () => false)) return [path];
  let entries: Deno.DirEntry[];
  try {
    entries = await Array.fromAsync(Deno.readDir(path));
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    throw new InputError(
      `Cannot read the run ${path}: ${missing ? "there is no such folder" : "it is no folder"}`,
    );
  }
  const shards = entries.filter(({ name }) => /^shard-\d+-of-\d+$/.test(name)).map(({ name }) => name);
  if (shards.length === 0) {
    throw new InputError(`${path} is no run: it has no config.json`, {
      hint: "A run is what `emend eval --out DIR` writes",
    });
  }
  const order = (name: string) => Number(name.split("-")[1]);
  return shards.toSorted((a, b) => order(a) - order(b)).map((name) => join(path, name));
}

/** One folder, as it is. @throws {InputError} */
export async function readFolder(path: string): Promise<Folder> {
  const configPath = join(path, "config.json");
  const text = new TextDecoder().decode(await readBytes(configPath));
  const config = checkConfig(parse(text, configPath), configPath);
  const wanted = new Set(config.indices);
  const lines = await readLines(join(path, "cases.jsonl"), checkCaseLine, wanted);
  const retained = await readLines(join(path, "retained.jsonl"), checkRetainedLine, wanted);
  const summary = await Deno.readTextFile(join(path, "summary.json")).then(JSON.parse).catch(() => undefined);
  const total = summary?.time_s?.total;
  return {
    path,
    config,
    lines,
    ...(retained.length && { retained }),
    ...(typeof total === "number" && { total_s: total }),
  };
}

/** Lines of a JSONL file that may be absent. */
async function readLines<Line extends { id: string; index: number }>(
  path: string,
  check: (value: unknown, where: string) => Line,
  wanted: ReadonlySet<number>,
): Promise<Line[]> {
  // Line by line from the bytes: a text has at most 2²⁹ characters, and long runs have more.
  const bytes = await readBytes(path, new Uint8Array());
  const decoder = new TextDecoder();
  const lines: Line[] = [];
  let at = 0;
  for (
    let number = 1, end = bytes.indexOf(10);
    end >= 0;
    number++, at = end + 1, end = bytes.indexOf(10, at)
  ) {
    const text = decoder.decode(bytes.subarray(at, end));
    const where = `${path} line ${number}`;
    if (text.trim()) lines.push(check(parse(text, where), where));
  }
  // What follows the last line break was cut off by a kill, unless it is whole all the same.
  const torn = decoder.decode(bytes.subarray(at));
  const last = torn.trim() && attempt(() => check(JSON.parse(torn), path));
  if (last) lines.push(last);
  const seen = new Set<number>();
  for (const { id, index } of lines) {
    if (!wanted.has(index)) {
      throw new InputError(
        `${path} has case ${id} at position ${index}, which its config.json does not name`,
      );
    }
    if (seen.has(index)) throw new InputError(`${path} has case ${id} at position ${index} twice`);
    seen.add(index);
  }
  return lines;
}

async function readBytes(path: string, missing?: Uint8Array): Promise<Uint8Array> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound && missing !== undefined) return missing;
    const why = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new InputError(`Cannot read ${path}: ${why}`, { cause: error });
  }
}

function parse(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InputError(`${where} is not JSON: ${(error as Error).message.split("\n")[0]}`, {
      cause: error,
    });
  }
}

function attempt<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}
