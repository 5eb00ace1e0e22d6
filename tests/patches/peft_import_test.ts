/** LoRA adapters as patches: PEFT's own against transformers' logits (tools/patches/make_adapters.py), ours back. */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "npm:fast-check@4.10.2";
import { openCheckpoint } from "../../engine/io/checkpoint.ts";
import { InputError } from "../../engine/io/errors.ts";
import { parseSafetensors, writeSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";
import { loadModel } from "../../engine/models/load.ts";
import { applyPatch, readPatch, writePatch } from "../../patches/patch.ts";
import { writePeft } from "../../patches/peft.ts";
import { readPeft } from "../../patches/peft_import.ts";
import { stackPatches } from "../../patches/stack.ts";
import { withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { copyFolder, logitsOf, modelFolder, NO_TOKENIZER, noisePatch, readTensor } from "./_models.ts";

/** The project's tolerance for parity of logits. */
const PARITY = 1e-4;

const adapterFolder = (name: string) => new URL(`../fixtures/adapters/${name}`, import.meta.url).pathname;

for (const name of ["gpt2-plain", "llama-patterns", "llama-headless"]) {
  Deno.test(
    `readPeft() of ${name}, which PEFT saved, computes what transformers with PEFT computes`,
    withGpu(async (gpu) => {
      const folder = adapterFolder(name), expected = join(folder, "expected.safetensors");
      const source = await openFile(expected);
      const { metadata } = await parseSafetensors(source);
      source.close();
      const logits = (await readTensor(expected, "logits")).values;
      const sequences = JSON.parse(metadata.sequences);
      using model = await loadModel(gpu, modelFolder(metadata.base), NO_TOKENIZER);
      const patch = await readPeft(folder, model.checkpoint);
      assert.deepEqual([patch.method, patch.requests], ["peft", []]);
      await inFolder(async (folder) => {
        await writePatch(join(folder, "p"), patch);
        assert.deepEqual(await readPatch(join(folder, "p")), patch);
      });
      const before = await logitsOf(model, sequences);
      assert.ok(relativeError(before, logits) > 0.1, "the adapter does something");
      using applied = applyPatch(model, patch);
      const error = relativeError(await logitsOf(model, sequences), logits);
      assert.ok(error < PARITY, `${error}`);
      applied[Symbol.dispose]();
      assert.deepEqual(await logitsOf(model, sequences), before);
    }),
  );
}

for (const name of ["gpt2-tiny", "llama-tiny", "smollm2-tiny"]) {
  Deno.test(`readPeft() of what writePeft() wrote for ${name} is the change that was written`, async () => {
    await inFolder(async (folder) => {
      const base = await openCheckpoint(modelFolder(name));
      const patch = stackPatches([
        await noisePatch(base, { "layer.0.mlp.down": 1, "layer.1.mlp.up": 2, "layer.1.mlp.down": 1 }, 1),
        await noisePatch(base, { "layer.1.mlp.down": 2, head: 1 }, 50),
      ]);
      await writePeft(folder, patch);
      const { deltas } = await readPeft(folder, base);
      const plain = (list: typeof deltas) =>
        list.map((delta) => ({ ...delta, ranks: 0 })).sort((a, b) => a.role < b.role ? -1 : 1);
      assert.deepEqual(plain(deltas), plain(patch.deltas));
      base.close();
    });
  });
}

// deno-lint-ignore no-explicit-any -- JSON to be broken
type Change = (config: any) => void;

/** A sound adapter with its config changed. */
async function withConfig(change: Change, run: (folder: string) => Promise<void>) {
  await inFolder(async (parent) => {
    const folder = join(parent, "adapter");
    await copyFolder(adapterFolder("llama-patterns"), folder);
    const path = join(folder, "adapter_config.json");
    const config = JSON.parse(await Deno.readTextFile(path));
    change(config);
    await Deno.writeTextFile(path, JSON.stringify(config));
    await run(folder);
  });
}

async function refused(folder: string, message: RegExp, model = "llama-tiny") {
  const base = await openCheckpoint(modelFolder(model));
  try {
    await assert.rejects(readPeft(folder, base), (error) => {
      assert.ok(error instanceof InputError, String((error as Error).stack));
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n|\.$/);
      return true;
    });
  } finally {
    base.close();
  }
}

const CONFIGS: [what: string, change: Change, message: RegExp][] = [
  ["of another type", (c) => c.peft_type = "IA3", /of an adapter of type "IA3"; emend imports LORA$/],
  ["without a type", (c) => delete c.peft_type, /bad peft_type/],
  ["that is DoRA", (c) => c.use_dora = true, /it is a DoRA adapter, which scales whole columns$/],
  ["with biases", (c) => c.bias = "all", /it trains biases \(bias "all"\)$/],
  ["with LoRA biases", (c) => c.lora_bias = true, /it trains biases \(lora_bias\)$/],
  [
    "with whole modules",
    (c) => c.modules_to_save = ["lm_head"],
    /replaces whole modules \(modules_to_save\)$/,
  ],
  ["that repeats layers", (c) => c.layer_replication = [[0, 2]], /repeats layers/],
  ["that changed its base", (c) => c.init_lora_weights = "pissa", /its base was changed .*"pissa"\)$/],
  ["with a key of the future", (c) => c.use_qlora9 = true, /emend does not know its "use_qlora9"$/],
  ["without a rank", (c) => delete c.r, /bad r: /],
  ["with rank 0", (c) => c.r = 0, /bad r: /],
  ["with a rank that is text", (c) => c.r = "2", /bad r: /],
  ["with another rank than its factors", (c) => c.r = 4, /are \[2, .* the model ask for \[4, /],
  [
    "without the pattern of its ranks",
    (c) => c.rank_pattern = {},
    /factors of .* are \[\d, .* ask for \[2, /,
  ],
  [
    "with a huge alpha",
    (c) => Object.assign(c, { lora_alpha: 1e41, alpha_pattern: {} }),
    /scaled by .*, is out of the range of F32$/,
  ],
  ["with a pattern that is none", (c) => c.rank_pattern = { "(": 1 }, /"\(" is no pattern that emend reads$/],
  ["with a pattern without end", (c) => c.rank_pattern = { "(a+)+": 1 }, /is no pattern that emend reads$/],
  ["with patterns of a wrong kind", (c) => c.alpha_pattern = { q_proj: "1" }, /bad alpha_pattern\.q_proj/],
];

for (const [what, change, message] of CONFIGS) {
  Deno.test(`readPeft() refuses an adapter ${what}`, () => withConfig(change, (f) => refused(f, message)));
}

Deno.test("readPeft() takes an adapter whose alpha is nought for one that changes nothing", async () => {
  await withConfig(
    (c) => Object.assign(c, { lora_alpha: 0, alpha_pattern: {} }),
    (folder) => refused(folder, /changes nothing$/),
  );
});

Deno.test("readPeft() refuses files that are missing, strange, or for another model", async () => {
  await withConfig(() => {}, async (folder) => {
    const weights = join(folder, "adapter_model.safetensors"), config = join(folder, "adapter_config.json");
    const good = await Deno.readFile(weights);
    await refused(
      folder,
      /changes "model\.layers\.0\.mlp\.down_proj", which is no linear map of .*gpt2-tiny$/,
      "gpt2-tiny",
    );
    await refused(folder, /are \[2, 88\] .* ask for \[2, 64\]|is no linear map/, "mistral-tiny");

    const source = await openFile(weights);
    const file = await parseSafetensors(source);
    const tensors = await Promise.all(
      [...file.entries.values()].map(async (entry) => ({ ...entry, bytes: await file.read(entry) })),
    );
    source.close();
    const rewrite = (change: (t: typeof tensors[0]) => Partial<typeof tensors[0]> | undefined) =>
      writeSafetensors(
        weights,
        tensors.flatMap((t) => {
          const other = change(t);
          return other ? [{ ...t, ...other, data: () => [other.bytes ?? t.bytes] }] : [];
        }),
      );
    const [{ name }] = tensors;
    const only = (changed: Partial<typeof tensors[0]> | undefined) => (t: typeof tensors[0]) =>
      t.name === name ? changed : {};
    const cases: [ReturnType<typeof only>, RegExp][] = [
      [only(undefined), /"model\.layers\.0\.mlp\.down_proj" has no lora_A$/],
      [
        only({ name: "base_model.model.model.norm.weight" }),
        /"base_model.* is no LoRA factor of a linear map$/,
      ],
      [only({ name: name.replace("lora_A", "lora_magnitude_vector") }), /belongs to a DoRA adapter$/],
      [only({ name: name.replace("lora_A.weight", "lora_embedding_A") }), /changes an embedding$/],
      [only({ shape: [88, 2] }), /are \[88, 2\] and \[32, 2\]; the config and the model ask for \[2, 88\]/],
      [only({ shape: [176] }), /are \[176\] and /],
      [only({ dtype: "I32" }), /is I32$/],
      [
        only({ bytes: new Uint8Array(Float32Array.of(NaN, ...Array(175).fill(1)).buffer) }),
        /out of the range/,
      ],
      [
        (t) => ({ name: t.name.replace("layers.0.", "layers.7.") }),
        /changes "model\.layers\.7\..* no linear map/,
      ],
      [() => undefined, /changes nothing$/],
    ];
    for (const [change, message] of cases) {
      await rewrite(change);
      await refused(folder, message);
    }
    await Deno.writeFile(weights, good);
    await Deno.writeTextFile(config, "{");
    await refused(folder, /Cannot read .*adapter_config\.json: /);
    await Deno.remove(weights);
    await Deno.writeTextFile(join(folder, "adapter_model.bin"), "");
    await Deno.copyFile(join(adapterFolder("llama-patterns"), "adapter_config.json"), config);
    await refused(folder, /has its adapter as adapter_model\.bin, a format that can run code$/);
    await Deno.remove(join(folder, "adapter_model.bin"));
    await refused(folder, /^No such file: .*adapter_model\.safetensors$/);
    await refused(join(folder, "none"), /^No such file: .*adapter_config\.json$/);
  });
});

Deno.test("readPeft() refuses or reads any truncated or altered adapter, and throws nothing else", async () => {
  await withConfig(() => {}, async (folder) => {
    const weights = join(folder, "adapter_model.safetensors"), config = join(folder, "adapter_config.json");
    const base = await openCheckpoint(modelFolder("llama-tiny"));
    const [goodWeights, goodConfig] = [await Deno.readFile(weights), await Deno.readFile(config)];
    for (let n = 0; n < goodWeights.length; n += 97) {
      await Deno.writeFile(weights, goodWeights.subarray(0, n));
      await assert.rejects(readPeft(folder, base), InputError);
    }
    const change = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(change, change, async (inWeights, inConfig) => {
        for (
          const [path, good, changes, room] of [
            [weights, goodWeights, inWeights, 1500],
            [config, goodConfig, inConfig, goodConfig.length],
          ] as const
        ) {
          const bytes = good.slice();
          for (const [at, value] of changes) bytes[at % room] = value;
          await Deno.writeFile(path, bytes);
        }
        await readPeft(folder, base).catch((error) =>
          assert.ok(error instanceof InputError, String(error?.stack))
        );
      }),
      { numRuns: 200, seed: 1 },
    );
    base.close();
  });
});
