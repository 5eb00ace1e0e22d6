/**
 * Runs the tests: one `deno test` a folder, so that a crash or a type error costs that folder only. Ends with
 * what was skipped and why, what failed, and one line `N passed, N failed, N skipped`; exits with 1 when a
 * test failed. Steps are not counted.
 *
 * ```sh
 * deno task test                      # everything
 * deno task test tests/engine/io      # a folder or a file
 * deno task test --filter cholesky    # tests whose name contains a word
 * ```
 */
import { relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** What became of the tests of one process. */
export interface Outcome {
  passed: number;
  /** Failed tests, and files that ended before they reported anything. */
  failed: string[];
  skipped: string[];
}

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Reads the JUnit report that `deno test` wrote; tests that a filter left out are not counted. */
export function readReport(xml: string, filter?: string): Outcome {
  const outcome: Outcome = { passed: 0, failed: [], skipped: [] };
  const cases = [
    ...xml.matchAll(/<testcase name="([^"]*)" classname="([^"]*)"([^>]*)>([\s\S]*?)<\/testcase>/g),
  ]
    .map(([, name, file, attributes, body]) => ({
      name: unescape(name),
      file: unescape(file),
      attributes,
      body,
    }));
  const names = new Set(cases.map(({ name, file }) => `${file} ${name}`));
  for (const { name, file, attributes, body } of cases) {
    if (isStep(name, file, names)) continue;
    const plain = file.replace(/^\.\//, "");
    if (/<skipped\s*\/?>/.test(body)) {
      // An ignored test has a time, one that the filter left out has none.
      if (filter === undefined || / time="/.test(attributes)) outcome.skipped.push(`${name} (${plain})`);
    } else if (/<(failure|error)\b/.test(body)) outcome.failed.push(`${name} (${plain})`);
    else outcome.passed++;
  }
  return outcome;
}

/** A step is reported under its test's name, " > " and its own. */
function isStep(name: string, file: string, names: Set<string>): boolean {
  for (let at = name.indexOf(" > "); at >= 0; at = name.indexOf(" > ", at + 3)) {
    if (names.has(`${file} ${name.slice(0, at)}`)) return true;
  }
  return false;
}

function unescape(text: string): string {
  const named: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replaceAll(
    /&(\w+|#\d+);/g,
    (whole, name) => named[name] ?? (name[0] === "#" ? String.fromCodePoint(Number(name.slice(1))) : whole),
  );
}

/** Test files under a file or folder, by folder. */
function testFiles(paths: string[]): Map<string, string[]> {
  const files = new Set<string>();
  const walk = (path: string) => {
    if (!Deno.statSync(path).isDirectory) files.add(relative(ROOT, path));
    else {
      for (const { name, isDirectory } of Deno.readDirSync(path)) {
        if (isDirectory || name.endsWith("_test.ts")) walk(`${path}/${name}`);
      }
    }
  };
  paths.forEach((path) => walk(resolve(path)));
  return Map.groupBy([...files].sort(), (file) => file.slice(0, Math.max(0, file.lastIndexOf("/"))));
}

/** Copies a stream to ours as it comes, and notes the lines "skipped: …" in it. */
async function tee(
  stream: ReadableStream<Uint8Array>,
  to: typeof Deno.stdout,
  reasons: Set<string>,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    for (let at = 0; at < bytes.length;) at += to.writeSync(bytes.subarray(at));
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    // deno-lint-ignore no-control-regex
    const plain = lines.map((line) => line.replaceAll(/\x1b\[[0-9;]*m/g, "").trim());
    plain.filter((line) => line.startsWith("skipped: ")).forEach((line) => reasons.add(line.slice(9)));
  }
}

/** Runs one folder's files in one process. */
async function runFolder(
  files: string[],
  filter: string | undefined,
  reasons: Set<string>,
): Promise<Outcome> {
  const report = Deno.makeTempFileSync({ prefix: "emend-tests-", suffix: ".xml" });
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "-A",
      `--junit-path=${report}`,
      ...(filter === undefined ? [] : [`--filter=${filter}`]),
      ...files,
    ],
    cwd: ROOT,
    env: Deno.stdout.isTerminal() ? {} : { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  await Promise.all([tee(child.stdout, Deno.stdout, reasons), tee(child.stderr, Deno.stderr, reasons)]);
  const { success, code, signal } = await child.status;
  const xml = Deno.readTextFileSync(report);
  Deno.removeSync(report);
  const outcome = readReport(xml, filter);
  if (success) return outcome;
  // A crash, a type error, or an error outside of any test: such a file is not in the report.
  const why = signal ? `ended by ${signal}` : `exit code ${code}`;
  const silent = files.filter((file) => !xml.includes(`classname="./${file}"`));
  outcome.failed.push(...silent.map((file) => `${file} did not run (${why})`));
  if (outcome.failed.length === 0) outcome.failed.push(`deno test of ${files.join(", ")} (${why})`);
  return outcome;
}

/** The reason a skipped test printed, if it did: the line starts with the test's name. */
function withReason(test: string, reasons: Set<string>): string {
  const name = test.replace(/ \([^()]*\)$/, "");
  const reason = [...reasons].find((line) => line.startsWith(name));
  if (reason) reasons.delete(reason);
  return reason ?? `${test}: no reason given`;
}

async function main(): Promise<void> {
  const args = [...Deno.args];
  const at = args.findIndex((arg) => arg.startsWith("--filter"));
  let filter: string | undefined;
  if (at >= 0) {
    filter = args[at].includes("=") ? args[at].slice(args[at].indexOf("=") + 1) : args.splice(at + 1, 1)[0];
    args.splice(at, 1);
  }
  const unknown = args.find((arg) => arg.startsWith("-"));
  if (unknown !== undefined) {
    console.error(`Unknown option ${unknown}: give files, folders or --filter WORD`);
    Deno.exit(2);
  }
  const reasons = new Set<string>();
  const total: Outcome = { passed: 0, failed: [], skipped: [] };
  const folders = testFiles(args.length > 0 ? args : [resolve(ROOT, "tests")]);
  if (folders.size === 0) {
    console.error(`There are no tests in ${args.join(", ")}`);
    Deno.exit(2);
  }
  for (const files of folders.values()) {
    const { passed, failed, skipped } = await runFolder(files, filter, reasons);
    total.passed += passed;
    total.failed.push(...failed);
    total.skipped.push(...skipped);
  }
  // Ignored tests count as skipped; what else was printed as skipped is a part of a test that passed.
  const lines = [...total.skipped.map((test) => withReason(test, reasons)), ...reasons];
  console.log();
  lines.forEach((line) => console.log(`skipped: ${line}`));
  total.failed.forEach((line) => console.log(`failed: ${line}`));
  console.log(`${total.passed} passed, ${total.failed.length} failed, ${total.skipped.length} skipped`);
  Deno.exit(total.failed.length > 0 || total.passed + total.skipped.length === 0 ? 1 : 0);
}

if (import.meta.main) await main();
