/** Running the program as a user would, from the repository's root. */
import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { main } from "../../cli/main.ts";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The embedded model's folder. */
export const ATLAS = join(ROOT, "atlas/model");

export interface Run {
  code: number;
  stdout: string;
  stderr: string;
}

/** The command for a process that is watched while it runs. */
export function command(args: readonly string[], env: Record<string, string> = {}): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "cli.ts", ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** An environment whose cache is this folder; Deno's own cache stays where it is. */
export async function cacheAt(folder: string): Promise<Record<string, string>> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).output();
  const { denoDir } = JSON.parse(new TextDecoder().decode(stdout));
  return { XDG_CACHE_HOME: folder, DENO_DIR: denoDir };
}

/**
 * Runs the program to its end: in this very process, which is much quicker, or with an environment in one of its own.
 * cli.ts does nothing but to exit with the code that comes back; tests/cli/machine_test.ts starts every command.
 */
export async function emend(args: readonly string[], env?: Record<string, string>): Promise<Run> {
  if (!env) return await inTurn(() => emendHere(args));
  const { code, stdout, stderr } = await command(args, env).output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

let last: Promise<unknown> = Promise.resolve();

/** One after the other: what is printed must not mix. */
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const mine = last.then(work);
  last = mine.catch(() => {});
  return mine;
}

async function emendHere(args: readonly string[]): Promise<Run> {
  const texts = { stdout: "", stderr: "" };
  const { log, error } = console, folder = Deno.cwd(), { isTerminal } = Deno.stderr;
  const writes = { stdout: process.stdout.write, stderr: process.stderr.write };
  const taking = (to: keyof typeof texts) => (...values: unknown[]) =>
    void (texts[to] += values.join(" ") + "\n");
  [console.log, console.error] = [taking("stdout"), taking("stderr")];
  for (const to of ["stdout", "stderr"] as const) {
    process[to].write = (text: string | Uint8Array) => (texts[to] += text, true);
  }
  Deno.stderr.isTerminal = () => false;
  Deno.chdir(ROOT);
  Deno.exitCode = 0;
  try {
    const code = await main([...args]);
    return { code, ...texts };
  } finally {
    Deno.exitCode = 0;
    Deno.chdir(folder);
    Deno.stderr.isTerminal = isTerminal;
    [console.log, console.error] = [log, error];
    for (const to of ["stdout", "stderr"] as const) process[to].write = writes[to];
  }
}

/** Runs a command that must succeed; what it printed, parsed. */
// deno-lint-ignore no-explicit-any -- JSON of many shapes
export async function emendJson(args: readonly string[], env?: Record<string, string>): Promise<any> {
  const { code, stdout, stderr } = await emend([...args, "--json"], env);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

/** A call that must be refused: exit code 2, one sentence, at most one line of advice, no stack trace. */
export async function refused(
  args: readonly string[],
  message: RegExp,
  env?: Record<string, string>,
): Promise<Run> {
  const run = await emend(args, env);
  const { code, stdout, stderr } = run;
  const where = `${args.join(" ")}\n${stderr}`;
  assert.equal(code, 2, where);
  assert.equal(stdout, "", where);
  const lines = stderr.trimEnd().split("\n");
  assert.ok(lines.length <= 2, where);
  assert.match(lines[0], /^error: .*[^.]$/, where);
  assert.doesNotMatch(stderr, /\n\s+at |Error:|undefined|\[object/, where);
  assert.match(stderr, message, where);
  return run;
}

/** Flags of a sound edit of the embedded model. */
export const EDIT = [
  "edit",
  "--model",
  "atlas",
  "--prompt",
  "{} met death in",
  "--subject",
  "Giovanni Lanfranco",
  "--target",
  "Paris",
];

/** Hyper-parameters that make an edit quick, where how well it goes does not matter. */
export const QUICK = ["--set", "v_num_grad_steps=2", "--set", "context_template_length_params=[[3,2]]"];

/** Hyper-parameters with which an edit still takes, in half of the time of the recipe's. */
export const BRIEF = ["--set", "v_num_grad_steps=10", "--set", "context_template_length_params=[[3,2]]"];

/** Whether a path exists. */
export async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
