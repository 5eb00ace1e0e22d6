/** `emend patch show`: what is in patch files. */
import { Command } from "npm:commander@15.1.0";
import { join } from "node:path";
import type { PromptEdit } from "../../editors/prompts/edit.ts";
import { readRecord, STACK } from "../../patches/applied.ts";
import type { Addition } from "../../engine/models/additions/addition.ts";
import { storedShape } from "../../patches/changes.ts";
import { measureChanges, type TensorChange } from "../../patches/checkpoint.ts";
import { byTensor, frobenius, rankOf } from "../../patches/norms.ts";
import { type Patch, readPatch } from "../../patches/patch.ts";
import { partsOf } from "../../patches/stack.ts";
import { printJson, table } from "../terminal.ts";
import { bytes, changesTable, openFiles, patchesTable } from "./common.ts";

interface Flags {
  model?: string;
  json?: boolean;
}

export function showCommand(): Command {
  return new Command("show")
    .description("Show where patches come from, what they change and by how much")
    .argument("<file...>", "patch files, or folders that patch apply wrote")
    .option("--model <M>", "also: is it their base, and how large are the changes beside its weights")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExample:\n  deno run -A cli.ts patch show paris.safetensors --model atlas",
    )
    .action((files: string[], flags: Flags) => runShow(files, flags));
}

async function runShow(files: string[], flags: Flags): Promise<void> {
  const read: { file: string; patch: Patch }[] = [];
  for (const file of files) {
    const path = await readRecord(file) ? join(file, STACK) : file;
    read.push({ file: path, patch: await readPatch(path) });
  }
  using checkpoint = flags.model === undefined ? undefined : await openFiles(flags.model);
  const hash = await checkpoint?.hash();
  const patches = [];
  for (const { file, patch } of read) {
    const matches = hash === undefined ? undefined : hash === patch.base.hash;
    const changes = checkpoint && matches ? await measureChanges(checkpoint, patch.deltas) : undefined;
    const described = {
      file,
      ...await describe(file, patch),
      base_matches: matches,
      weights_changed: changes,
    };
    patches.push(described);
    if (!flags.json) print(described, patch, flags.model, changes);
  }
  if (flags.json) printJson({ patches });
}

/** The JSON of a patch. */
async function describe(file: string, patch: Patch) {
  const parts = partsOf(patch);
  return {
    bytes: (await Deno.stat(file)).size,
    base: patch.base,
    model_type: patch.modelType,
    method: patch.method,
    hparams: patch.hparams,
    emend_version: patch.version,
    requests: patch.requests,
    ...patch.prompts ? { prompts: promptsOf(patch.prompts) } : {},
    ...patch.additions ? { additions: patch.additions.map(additionShown) } : {},
    patches: parts.map((part) => ({
      method: part.method,
      hparams: part.hparams,
      requests: part.requests.length,
      emend_version: part.version,
    })),
    tensors: [...byTensor(patch.deltas)].map(([tensor, deltas]) => ({
      tensor,
      role: deltas[0].role,
      shape: storedShape(deltas[0]),
      kind: deltas.length > 1 ? "several" : deltas[0].kind,
      rank: rankOf(deltas),
      frobenius: frobenius(deltas),
      bytes: deltas.reduce(
        (sum, d) => sum + 4 * (d.kind === "dense" ? d.values.length : d.left.length + d.right.length),
        0,
      ),
    })),
  };
}

/** The JSON of what stands beside a map; numbers are left out. */
function additionShown({ kind, role, settings, entries, tensors }: Addition) {
  const numbers = [...tensors.values()].reduce((sum, { values }) => sum + values.length, 0);
  return { kind, role, settings, entries, bytes: 4 * numbers };
}

/** The JSON of prompts in front; embeddings are left out. */
function promptsOf({ scope, facts, answers }: PromptEdit) {
  const { rule, alone, measure, limit, margin, encoder } = scope;
  return {
    scope: { rule, alone, measure, limit, ...margin !== undefined && { margin } },
    encoder,
    answers,
    facts: facts.map(({ text, front }) => ({ text, front })),
  };
}

function print(
  shown: Awaited<ReturnType<typeof describe>> & { file: string; base_matches?: boolean },
  patch: Patch,
  model: string | undefined,
  changes: TensorChange[] | undefined,
): void {
  const { base, method, hparams, requests } = shown;
  const parts = partsOf(patch);
  console.log(`${shown.file}, ${bytes(shown.bytes)}, written by emend ${shown.emend_version}`);
  console.log(`base:    ${base.name}, ${shown.model_type}, hash ${base.hash}`);
  const stacked = parts.length > 1 ? `a stack of ${parts.length}: ` : "";
  console.log(`method:  ${stacked}${method}  ${setting(hparams)}`.trimEnd());
  if (shown.base_matches !== undefined) {
    const hint = shown.base_matches ? "" : " It was made for another model, or for this one before an edit";
    console.log(`${model} ${shown.base_matches ? "is its base" : "is NOT its base."}${hint}`);
  }
  if (requests.length > 0) console.log(`\n${patchesTable(parts)}`);
  console.log("");
  if (shown.prompts) {
    const { facts, encoder, scope, answers } = shown.prompts;
    const alone = scope.alone && facts.length === 1
      ? "before every prompt"
      : `${scope.rule}, ${scope.measure} ${scope.measure === "cosine" ? "at least" : "below"} ${
        scope.limit.toPrecision(3)
      }${"margin" in scope ? `, ${scope.margin} above the third nearest` : ""} (${
        encoder.kind === "states" ? "the model's own states" : encoder.name
      })`;
    console.log(`in front: ${facts.length === 1 ? "1 fact" : `${facts.length} facts`}, ${alone}`);
    console.log(
      `answers:  ${
        answers.kind === "sibling"
          ? answers.name
          : `the base${answers.kind === "adapter" ? ` with the ${answers.editor} editor's adapter` : ""}`
      }\n`,
    );
    console.log(table([
      ["prompts about", "get in front"],
      ...facts.map((
        { text, front },
      ) => [text, `${front.length} characters, …${JSON.stringify(front.slice(-60))}`]),
    ]));
  } else if (changes) console.log(changesTable(changes));
  else if (shown.tensors.length > 0) {
    console.log(table([
      ["tensor", "shape", "rank", "change", "size"],
      ...shown.tensors.map((t) => [
        t.tensor,
        `[${t.shape.join(", ")}]`,
        t.kind === "low-rank" ? String(t.rank) : t.kind,
        t.frobenius.toPrecision(4),
        bytes(t.bytes),
      ]),
    ]));
  }
  if (shown.additions) {
    console.log(table([
      ["beside", "what", "entries", "setting", "size"],
      ...shown.additions.map((a) => [
        a.role,
        a.kind,
        String(a.entries.length),
        setting(a.settings),
        bytes(a.bytes),
      ]),
    ]));
  }
  console.log("");
}

/** Hyper-parameters on one line. */
function setting(hparams: Record<string, unknown>): string {
  const line = Object.entries(hparams).map(([key, value]) => `${key}=${JSON.stringify(value)}`).join(" ");
  return line.length > 160 ? `${line.slice(0, 159)}… (--json shows all)` : line;
}
