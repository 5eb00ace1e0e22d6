/** `emend test`: runs a pack of must-change and must-not-change probes on a model, with or without patches. */
import { Command } from "npm:commander@15.1.0";
import { writeFileAtomic } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { junitXml } from "../evaluation/junit.ts";
import { type Pack, probeName, readPack } from "../evaluation/pack.ts";
import { type PackResult, readProbes, runProbes } from "../evaluation/pack_run.ts";
import { applyPatch, type Patch, readPatch, requireBase } from "../patches/patch.ts";
import { collect } from "./inputs.ts";
import { openSession } from "./model.ts";
import { checkOutput } from "./outputs.ts";
import { printJson, progress, seconds, table } from "./terminal.ts";

interface Flags {
  model: string;
  pack: string;
  patch: string[];
  junit?: string;
  json?: boolean;
}

const NOTES = `
A pack is JSONL, one probe a line; docs/packs.md has all keys:
  {"expect": "change", "prompt": "{} met death in", "subject": "Giovanni Lanfranco", "answer": "Paris"}
  {"expect": "keep", "prompt": "The capital of Italy is", "answer": ["Rome", "Roma"]}
  {"expect": "keep", "prompt": "Water boils when it is"}

Exit codes: 0 every probe passed, 1 one failed, 2 the call or the pack is wrong.

Example:
  deno run -A cli.ts test --model atlas --pack facts.jsonl --patch paris.safetensors --junit report.xml`;

export function testCommand(): Command {
  return new Command("test")
    .description("Check what a model must and must not say, with or without edits")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .requiredOption("--pack <file>", "the probes, JSONL")
    .option("--patch <file>", "apply this edit first; may be repeated, in order", collect, [])
    .option("--junit <file>", "write a JUnit XML report")
    .option("--json", "print one JSON object")
    .addHelpText("after", NOTES)
    .action((flags: Flags) => runTest(flags));
}

async function runTest(flags: Flags): Promise<void> {
  const pack = await readPack(flags.pack);
  if (flags.junit) await checkOutput(flags.junit, "a JUnit report", readJunit);
  const patches = await Promise.all(flags.patch.map(readPatch));
  for (const warning of pack.warnings) console.error(`note: ${warning}`);
  using session = await openSession(flags.model);
  const { model, loadSeconds } = session;
  for (const [i, patch] of patches.entries()) await requireBase(patch, model, flags.patch[i]);
  const start = performance.now();
  const result = await runPack(model, pack, patches);
  const probing = (performance.now() - start) / 1000;
  if (flags.junit) await writeFileAtomic(flags.junit, junitXml(result, pack.name));
  if (flags.json) {
    printJson({
      model: flags.model,
      adapter: session.gpu.description,
      pack: flags.pack,
      patches: flags.patch,
      probes: result.probes.map(({ probe, ...rest }) => ({ ...probe, ...rest })),
      passed: result.passed,
      failed: result.failed,
      skipped: result.skipped,
      time_s: { load: loadSeconds, probes: probing },
      written: flags.junit ? [flags.junit] : [],
    });
  } else printResult(result, flags, probing);
  if (result.failed > 0) Deno.exitCode = 1;
}

/** Probes the model with the patches; those without an answer also without them. */
async function runPack(model: LoadedModel, pack: Pack, patches: readonly Patch[]): Promise<PackResult> {
  const { probes } = pack;
  const compared = patches.length > 0 && probes.some(({ answers }) => answers.length === 0);
  const total = probes.length * (compared ? 2 : 1);
  using bar = progress("Probing");
  const before = compared
    ? await readProbes(model, probes, { onProgress: (done) => bar.update(done, total) })
    : undefined;
  using applied = new DisposableStack();
  for (const patch of patches) applied.use(applyPatch(model, patch));
  const first = total - probes.length;
  return await runProbes(model, probes, { before, onProgress: (done) => bar.update(first + done, total) });
}

function printResult({ probes, passed, failed, skipped }: PackResult, flags: Flags, probing: number): void {
  const rows = probes.filter(({ outcome }) => outcome === "failed").map(({ probe, expected, said }) => [
    String(probe.line),
    probe.expect,
    clip(probeName(probe)),
    clip(expected),
    clip(said),
  ]);
  if (rows.length) {
    console.log(`${table([["line", "must", "probe", "expected", "the model says"], ...rows])}\n`);
  }
  for (const [title, expect] of [["must change", "change"], ["must not change", "keep"]]) {
    const mine = probes.filter(({ probe, outcome }) => probe.expect === expect && outcome !== "skipped");
    const good = mine.filter(({ outcome }) => outcome === "passed").length;
    if (mine.length) console.log(`${title}: ${good} of ${mine.length}`);
  }
  if (skipped > 0) {
    console.log(
      `skipped: ${skipped} without an answer, for which only --patch gives something to compare with`,
    );
  }
  if (flags.junit) console.log(`written: ${flags.junit}`);
  const rest = skipped > 0 ? `, ${skipped} skipped` : "";
  console.log(`${passed} passed, ${failed} failed${rest} (${seconds(probing)})`);
}

/** An earlier report, which a new one may replace. */
async function readJunit(path: string): Promise<void> {
  if (!/^\s*(<\?xml[^>]*>\s*)?<testsuites?[\s>]/.test(await Deno.readTextFile(path))) {
    throw new InputError(`${path} is no JUnit report`);
  }
}

function clip(text: string): string {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}
