/**
 * Our files against those who read them: transformers' logits of the edited checkpoint and PEFT's of the
 * adapter, stored by tools/patches/make_fixtures.py with the hashes of the files that it gave them.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { WeightDelta } from "../../editors/edit.ts";
import { parseSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";
import { loadModel } from "../../engine/models/load.ts";
import { writeCheckpoint } from "../../patches/checkpoint.ts";
import { applyPatch, patchOf } from "../../patches/patch.ts";
import { writePeft } from "../../patches/peft.ts";
import { stackPatches } from "../../patches/stack.ts";
import { withGpu } from "../_gpu.ts";
import { fixture, inFolder, NEEDS, sha256, SMOLLM2, testWith } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { editOf, filesOf, logitsOf, modelFolder, readTensor } from "./_models.ts";

/** The project's tolerance for parity of logits. */
const PARITY = 1e-4;
/** For adapters: transformers then computes W x and B A x apart, as we do. */
const ADAPTER = 1e-3;

interface Fixture {
  deltas: WeightDelta[];
  sequences: number[][];
  /** Logits of every so-manieth token are stored. */
  every: number;
  logits: Float32Array;
  peft?: Float32Array;
  sha256: Record<string, string>;
  text?: string;
  ids?: number[];
}

async function readFixture(name: string): Promise<Fixture> {
  const path = new URL(`../fixtures/patches/${name}.safetensors`, import.meta.url).pathname;
  const source = await openFile(path);
  const { entries, metadata } = await parseSafetensors(source);
  source.close();
  const deltas: WeightDelta[] = [];
  for (const { name, shape } of entries.values()) {
    if (!name.endsWith(".left")) continue;
    const full = name.slice(0, -".left".length);
    const [left, right] = [await readTensor(path, name), await readTensor(path, `${full}.right`)];
    // The names of a stack's parts have a number before them.
    deltas.push({ role: full.replace(/^\d+:/, ""), rank: shape[1], left: left.values, right: right.values });
  }
  return {
    deltas,
    sequences: JSON.parse(metadata.sequences),
    every: Number(metadata.every),
    logits: (await readTensor(path, "logits")).values,
    peft: entries.has("peft") ? (await readTensor(path, "peft")).values : undefined,
    sha256: JSON.parse(metadata.sha256),
    text: metadata.text,
    ids: metadata.ids && JSON.parse(metadata.ids),
  };
}

/** Writes the fixture's edit, and holds files and logits against what the peers were given and gave. */
function checkAgainstPeers(
  name: string,
  path: string,
  options: { rounds: boolean; files: boolean; stack?: boolean },
) {
  return withGpu(async (gpu) => {
    const expected = await readFixture(name);
    const load = (path: string) => loadModel(gpu, path, { tokenizer: expected.text !== undefined });
    const columns = (z: Float32Array, vocab: number) => z.filter((_, i) => i % vocab % expected.every === 0);
    const check = (got: Float32Array, wanted: Float32Array, tolerance: number, what: string) => {
      const error = relativeError(got, wanted);
      assert.ok(error <= tolerance, `${what} is off by ${error.toExponential(2)} relative`);
    };
    using model = await load(path);
    const { vocab } = model.dims;
    const edits = options.stack ? expected.deltas.map((delta) => [delta]) : [expected.deltas];
    const patch = stackPatches(await Promise.all(edits.map((deltas) => patchOf(model, editOf(deltas)))));
    if (expected.text !== undefined) assert.deepEqual(model.tokenizer.encode(expected.text), expected.ids);
    {
      using _patch = applyPatch(model, patch);
      const overlaid = columns(await logitsOf(model, expected.sequences), vocab);
      if (!options.rounds) check(overlaid, expected.logits, PARITY, "The overlaid model");
      if (expected.peft) check(overlaid, expected.peft, ADAPTER, "The overlaid model against the adapter");
    }
    if (!options.files) return;
    await inFolder(async (folder) => {
      const out = join(folder, "model"), adapter = join(folder, "adapter");
      await writePeft(adapter, patch);
      await writeCheckpoint(out, model.checkpoint, patch.deltas);
      for (const [file, hash] of Object.entries(expected.sha256)) {
        const bytes = (await filesOf(file.startsWith("adapter") ? adapter : out))[file];
        assert.equal(await sha256(bytes), hash, `${file} is not the one that was checked in Python`);
      }
      using edited = await load(out);
      check(
        columns(await logitsOf(edited, expected.sequences), vocab),
        expected.logits,
        PARITY,
        "The written model",
      );
    });
  });
}

for (const name of ["gpt2-tiny", "gpt2-tiny-sharded", "llama-tiny", "smollm2-tiny"]) {
  // 16-bit bases round the edit in their files; the overlay does not, and the adapter does not either.
  const rounds = name === "gpt2-tiny-sharded" || name === "smollm2-tiny";
  Deno.test(
    `transformers and PEFT compute our logits from the files of an edited ${name}`,
    checkAgainstPeers(name, modelFolder(name), { rounds, files: true }),
  );
}

for (const name of ["gpt2-tiny", "llama-tiny"]) {
  Deno.test(
    `transformers and PEFT compute our logits from the files of a stack of rank-one edits of ${name}`,
    checkAgainstPeers(`${name}.stack`, modelFolder(name), { rounds: false, files: true, stack: true }),
  );
}

Deno.test(
  "transformers computes our logits from the folder of an edited GGUF file",
  checkAgainstPeers("tiny-llama-bpe.gguf", fixture("tiny-llama-bpe.gguf"), { rounds: false, files: true }),
);

testWith(
  SMOLLM2,
  NEEDS.smollm2,
  "transformers computes our logits from the folder of an edited SmolLM2 in Q4_1",
  (path) => checkAgainstPeers("SmolLM2-135M-Instruct.Q4_1.gguf", path, { rounds: false, files: false })(),
);
