/**
 * A run's folder: config.json first, then cases.jsonl line by line, each flushed to the disk before the next
 * case starts. A kill loses at most what was in flight: a torn last line is cut off when the run goes on.
 */
import { join } from "node:path";
import { checkWritable, writeFileAtomic } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import { lockFolder } from "../engine/io/lock.ts";
import { brief, difference } from "./difference.ts";
import type { CaseLine, RetainedLine, RunConfig, Summary } from "./records.ts";

/** An open run; until it is disposed of, nobody else writes there. */
export interface RunFolder extends Disposable {
  readonly path: string;
  /** Lines of earlier sessions, by case id. */
  readonly lines: Map<string, CaseLine>;
  readonly retained: Map<string, RetainedLine>;
  /** Adds lines that belong together; all of them arrive or, after a kill, none counts. */
  append(lines: readonly CaseLine[]): Promise<void>;
  appendRetained(line: RetainedLine): Promise<void>;
  /** Where the patch of the edit that ends with a case is kept, in sequential runs. */
  editPath(first: CaseLine["index"]): string;
  /** Where what that edit asked to remember is kept, for methods that do. */
  memoryPath(first: CaseLine["index"]): string;
  finish(summary: Summary): Promise<void>;
}

/**
 * Refuses a folder that a run cannot go into, before any work.
 * @throws {InputError} when it holds a run and `resume` is not set, something else, is being written, or cannot be
 */
export async function checkRunFolder(path: string, resume: boolean): Promise<void> {
  const names = await Array.fromAsync(Deno.readDir(path)).then((l) => l.map((e) => e.name), () => undefined);
  if (names === undefined) return await checkWritable(join(path, "config.json"));
  if (names.includes("config.json") && names.every((name) => OURS.test(name))) {
    if (resume) {
      using _free = await lockFolder(path, "config.json");
      return await checkWritable(join(path, "config.json"));
    }
    throw new InputError(`${path} already holds a run`, {
      hint: "Continue it with --resume, or name another folder",
    });
  }
  if (names.length) {
    throw new InputError(`${path} holds something other than a run`, { hint: "Name a new folder" });
  }
  await checkWritable(join(path, "config.json"));
}

/** What a run's folder may hold. */
const OURS = /^(config|summary)\.json$|^(cases|retained)\.jsonl$|^edits$|^\..*\.tmp$|^report\./;

/**
 * Opens a run's folder, a new one or, with `resume`, one of the same configuration.
 * @throws {InputError} as {@link checkRunFolder}, for another configuration (naming what differs), a bad line
 */
export async function openRunFolder(path: string, config: RunConfig, resume: boolean): Promise<RunFolder> {
  await checkRunFolder(path, resume);
  const file = (name: string) => join(path, name);
  const earlier = await Deno.readTextFile(file("config.json")).catch(() => undefined);
  if (earlier !== undefined) requireSame(path, JSON.parse(earlier), config);
  else await writeFileAtomic(file("config.json"), JSON.stringify(config, null, 2) + "\n");
  using opening = new DisposableStack();
  opening.use(await lockFolder(path, "config.json"));
  const lines = await readLines<CaseLine>(file("cases.jsonl"));
  const retained = await readLines<RetainedLine>(file("retained.jsonl"));
  const open = opening.move();
  return {
    path,
    lines: new Map(lines.map((line) => [line.id, line])),
    retained: new Map(retained.map((line) => [line.id, line])),
    append: (lines) => append(file("cases.jsonl"), lines),
    appendRetained: (line) => append(file("retained.jsonl"), [line]),
    editPath: (first) => join(path, "edits", `${String(first).padStart(6, "0")}.safetensors`),
    memoryPath: (first) => join(path, "edits", `${String(first).padStart(6, "0")}.memory.safetensors`),
    finish: (summary) => writeFileAtomic(file("summary.json"), JSON.stringify(summary, null, 2) + "\n"),
    [Symbol.dispose]: () => open.dispose(),
  };
}

/** Names the first key in which two configurations differ, with both values. */
function requireSame(path: string, earlier: unknown, config: RunConfig): void {
  const found = difference(earlier, JSON.parse(JSON.stringify(config)));
  if (found === undefined) return;
  throw new InputError(
    `The run in ${path} has another ${found.key}: ${brief(found.a)} there, ${brief(found.b)} now`,
    { hint: "Name another folder, or give what that run was given" },
  );
}

/** Appends in one write and waits for the disk. */
async function append(path: string, lines: readonly unknown[]): Promise<void> {
  using file = await Deno.open(path, { append: true, create: true });
  const bytes = new TextEncoder().encode(lines.map((line) => JSON.stringify(line) + "\n").join(""));
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
  await file.sync();
}

/** Whole lines of a JSONL file; what follows the last line break is cut off the file. */
async function readLines<Line>(path: string): Promise<Line[]> {
  const bytes = await Deno.readFile(path).catch(() => new Uint8Array());
  const end = bytes.lastIndexOf(10) + 1;
  if (end < bytes.length) await Deno.truncate(path, end);
  const text = new TextDecoder().decode(bytes.subarray(0, end));
  return text.split("\n").slice(0, -1).map((line, i) => {
    try {
      return JSON.parse(line);
    } catch {
      throw new InputError(`${path} line ${i + 1} is not JSON`, { hint: "The run cannot go on from here" });
    }
  });
}
