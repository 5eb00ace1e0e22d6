/** What the tests of evaluation runs share: a folder for each, what runs write, and killing them. */
import { join } from "node:path";
import type { Summary } from "../../evaluation/records.ts";
import { command } from "./_run.ts";

/** Runs with an empty folder of its own. */
export function inFolder(body: (folder: string) => Promise<void>): () => Promise<void> {
  return async () => {
    const folder = await Deno.makeTempDir();
    try {
      await body(folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  };
}

/** The lines of a JSONL file. */
export async function linesOf<Line>(path: string): Promise<Line[]> {
  return (await Deno.readTextFile(path)).trimEnd().split("\n").map((line) => JSON.parse(line));
}

/** JSON without what measures the machine. */
export function untimed(value: unknown): string {
  const measured = new Set(["time_s", "memory", "phases"]);
  return JSON.stringify(value, (key, item) => measured.has(key) ? undefined : item);
}

/** A run's summary. */
export const summaryOf = async (folder: string): Promise<Summary> =>
  JSON.parse(await Deno.readTextFile(join(folder, "summary.json")));

/** Starts a run and kills it, without mercy, as soon as `lines` lines are there. */
export async function killed(args: string[], file: string, lines: number): Promise<void> {
  const child = command(args).spawn();
  const drained = [child.stdout, child.stderr].map((stream) => stream.cancel());
  for (let waited = 0; waited < 120_000; waited += 20) {
    const text = await Deno.readTextFile(file).catch(() => "");
    if (text.split("\n").length > lines) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  child.kill("SIGKILL");
  await Promise.all([child.status, ...drained]);
}
