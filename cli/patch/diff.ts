/** `emend patch diff`: two patches, or two checkpoints of one model, beside each other. */
import { Command } from "npm:commander@15.1.0";
import type { Checkpoint } from "../../engine/io/checkpoint.ts";
import { InputError } from "../../engine/io/errors.ts";
import { type ChangeSize, comparePatches } from "../../patches/diff.ts";
import { diffCheckpoints } from "../../patches/diff_models.ts";
import { readPatch, writePatch } from "../../patches/patch.ts";
import { number } from "../inputs.ts";
import { checkOutput } from "../outputs.ts";
import { printJson, progress, table } from "../terminal.ts";
import { bytes, openFiles, share, short } from "./common.ts";

interface Flags {
  patch?: string;
  maxRank: string;
  json?: boolean;
}

export function diffCommand(): Command {
  return new Command("diff")
    .description("Compare two patches; or two checkpoints of one model, whose difference can become a patch")
    .argument("<a>", "a patch file; or the base: a model folder, a .gguf file, or atlas")
    .argument("<b>", "another patch file; or a model that was made from the base")
    .option("--patch <file>", "write the difference of two models as a patch of the first")
    .option("--max-rank <n>", "with --patch: look for factors of at most this rank", "0")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
A difference is dense and, applied to the first model, gives the second one back: bit for bit from 16-bit
weights; from F32 the last bits of some elements may differ, which are counted. With --max-rank, matrices
whose change has so low a rank, up to the rounding of the second model, become factors: a ROME edit that
another tool wrote into a checkpoint is rank 1 again.

Example:
  deno run -A cli.ts patch diff paris.safetensors rome.safetensors
  deno run -A cli.ts patch diff base-folder tuned-folder --max-rank 8 --patch tuned.safetensors`,
    )
    .action((a: string, b: string, flags: Flags) => runDiff(a, b, flags));
}

async function runDiff(a: string, b: string, flags: Flags): Promise<void> {
  const maxRank = number("--max-rank", flags.maxRank, 0, 1024, true);
  const models = await Promise.all([a, b].map(isModel));
  if (models[0] !== models[1]) {
    const [model, other] = models[0] ? [a, b] : [b, a];
    throw new InputError(`${model} is a model and ${other} is not`, {
      hint: "Compare two patch files or two models",
    });
  }
  if (!models[0]) {
    if (flags.patch) {
      throw new InputError("--patch writes the difference of two models, and these are patches");
    }
    return await comparePatchFiles(a, b, flags);
  }
  if (flags.patch) await checkOutput(flags.patch, "a patch", readPatch);
  else if (maxRank > 0) throw new InputError("--max-rank is for --patch");
  using base = await openFiles(a);
  using other = await openFiles(b);
  await compareModels(base, other, [a, b], maxRank, flags);
}

async function isModel(name: string): Promise<boolean> {
  if (name === "atlas" || name.endsWith(".gguf")) return true;
  const info = await Deno.stat(name).catch(() => undefined);
  if (info === undefined) throw new InputError(`No such patch or model: ${name}`);
  return info.isDirectory;
}

async function comparePatchFiles(a: string, b: string, flags: Flags): Promise<void> {
  const [first, second] = [await readPatch(a), await readPatch(b)];
  const { sameBase, tensors, cosine, requests } = comparePatches(first, second);
  if (flags.json) {
    const { both, onlyA: only_a, onlyB: only_b } = requests;
    return printJson({ a, b, same_base: sameBase, cosine, tensors, requests: { both, only_a, only_b } });
  }
  const base = sameBase
    ? `Both are for ${first.base.name} (${short(first.base.hash)})`
    : `They are for different models: ${first.base.name} (${short(first.base.hash)}) and ` +
      `${second.base.name} (${short(second.base.hash)})`;
  console.log(`${base}\n`);
  const size = (change?: ChangeSize) =>
    change ? `${change.frobenius.toPrecision(4)} (rank ${change.rank})` : "–";
  console.log(table([
    ["tensor", "shape", a, b, "cosine"],
    ...tensors.map((t) => [
      t.tensor,
      `[${t.shape.join(", ")}]`,
      size(t.a),
      size(t.b),
      t.cosine?.toFixed(4) ?? "",
    ]),
  ]));
  console.log(`\ncosine over all tensors: ${cosine?.toFixed(4) ?? "none: one of them changes nothing"}`);
  const { both, onlyA, onlyB } = requests;
  console.log(`requests: ${both.length} in both, ${onlyA.length} only in ${a}, ${onlyB.length} only in ${b}`);
  for (const { prompt, subject, target } of both) {
    console.log(`  ${prompt.replace("{}", subject)} →${target}`);
  }
}

async function compareModels(
  base: Checkpoint,
  other: Checkpoint,
  [a, b]: string[],
  maxRank: number,
  flags: Flags,
): Promise<void> {
  using bar = progress("Comparing");
  const keep = flags.patch !== undefined;
  const { compared, different, onlyBase, onlyOther, patch } = await diffCheckpoints(base, other, {
    keep,
    maxRank,
    onProgress: bar.update,
  });
  if (flags.patch && patch) await writePatch(flags.patch, patch);
  bar[Symbol.dispose]();
  if (flags.patch && !patch) throw new InputError(`${a} and ${b} do not differ: there is nothing to write`);
  const written = flags.patch ? [flags.patch] : [];
  if (flags.json) {
    return printJson({ a, b, compared, different, only_a: onlyBase, only_b: onlyOther, written });
  }
  console.log(`${different.length} of ${compared} tensors differ`);
  if (onlyBase.length) console.log(`only in ${a}: ${onlyBase.join(", ")}`);
  if (onlyOther.length) console.log(`only in ${b}: ${onlyOther.join(", ")}`);
  if (different.length > 0) {
    console.log(`\n${
      table([
        ["tensor", "shape", "change", "of the weight", "elements", ...keep ? ["rank", "not exact"] : []],
        ...different.map((d) => [
          d.tensor,
          `[${d.shape.join(", ")}]`,
          d.frobenius.toPrecision(4),
          share(d.relative),
          String(d.changed),
          ...keep ? [d.rank?.toString() ?? "dense", String(d.inexact)] : [],
        ]),
      ])
    }`);
  }
  if (flags.patch) console.log(`\nwritten: ${flags.patch} (${bytes((await Deno.stat(flags.patch)).size)})`);
}
