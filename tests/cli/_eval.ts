/** What the tests of evaluation runs share: a folder for each, what runs write, and killing them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Summary } from "../../evaluation/records.ts";
import { command, emendJson, exists } from "./_run.ts";

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

/** Starts a command and kills it, without mercy, as soon as `reached`. */
export async function killedWhen(
  reached: () => Promise<boolean>,
  args: readonly string[],
): Promise<void> {
  const child = command(args).spawn();
  const drained = [child.stdout, child.stderr].map((stream) => stream.cancel());
  for (let waited = 0; waited < 120_000 && !await reached(); waited += 20) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  child.kill("SIGKILL");
  await Promise.all([child.status, ...drained]);
}

/** Starts a run and kills it as soon as a file has `lines` lines. */
export async function killed(args: readonly string[], file: string, lines: number): Promise<void> {
  const text = () => Deno.readTextFile(file).catch(() => "");
  await killedWhen(async () => (await text()).split("\n").length > lines, args);
}

/**
 * A run whose edits stay and that is killed after two cases must end as one that is not killed: every number of
 * every case, after its edit and after the last one.
 */
export async function endsTheSame(folder: string, args: readonly string[]): Promise<void> {
  const [whole, broken] = ["whole", "broken"].map((name) => join(folder, name));
  const run = (out: string) => ["eval", "--model", "atlas", "--dataset", "atlas", ...args, "--out", out];
  await emendJson(run(whole));
  await killed(run(broken), join(broken, "cases.jsonl"), 2);
  assert.ok(!await exists(join(broken, "summary.json")), "it was not killed in time");
  await emendJson([...run(broken), "--resume"]);
  assert.equal(untimed(await summaryOf(broken)), untimed(await summaryOf(whole)));
  for (const file of ["cases.jsonl", "retained.jsonl"]) {
    const [a, b] = await Promise.all([whole, broken].map((dir) => linesOf(join(dir, file))));
    assert.ok(a.length > 2);
    assert.equal(untimed(b), untimed(a), file);
  }
}
