import assert from "node:assert/strict";
import { join } from "node:path";
import { type Checkpoint, openCheckpoint } from "../../../engine/io/checkpoint.ts";
import { parseConfig } from "../../../engine/io/config.ts";
import { InputError } from "../../../engine/io/errors.ts";
import { writeSafetensors } from "../../../engine/io/safetensors.ts";
import {
  fixture,
  fixtureJson,
  gather,
  inFolder,
  NEEDS,
  sha256,
  SMOLLM2,
  STORIES,
  testWith,
  widen,
} from "./_data.ts";

const TINY = ["tiny-llama-spm.gguf", "tiny-llama-bpe.gguf", "tiny-qwen2.gguf", "tiny-gpt2.gguf"];

interface Expected {
  shape: number[];
  sha256: string;
}

/** Every expected tensor must be there, alone, with the right shape and the right F32 values. */
async function checkTensors(checkpoint: Checkpoint, tensors: Record<string, Expected>, maxBytes?: number) {
  assert.deepEqual([...checkpoint.weights.keys()].sort(), Object.keys(tensors).sort());
  for (const [name, { shape, sha256: expected }] of Object.entries(tensors)) {
    const info = checkpoint.weights.get(name)!;
    assert.deepEqual(info.shape, shape, name);
    const bytes = await gather(checkpoint.pieces(name, maxBytes));
    assert.equal(await sha256(widen(info.dtype, bytes)), expected, name);
  }
}

for (const name of TINY) {
  Deno.test(`openCheckpoint() gives transformers' weights bit for bit when it reads ${name}`, async () => {
    const checkpoint = await openCheckpoint(fixture(name));
    const { tensors } = fixtureJson("tiny-gguf.json")[name];
    await checkTensors(checkpoint, tensors);
    await checkTensors(checkpoint, tensors, 1000);
    checkpoint.close();
  });

  Deno.test(`rows() agrees with pieces() for every weight and row range of ${name}`, async () => {
    const checkpoint = await openCheckpoint(fixture(name));
    for (const { name: weight, shape } of checkpoint.weights.values()) {
      const whole = await gather(checkpoint.pieces(weight));
      const rowBytes = whole.length / shape[0];
      for (const [row0, rows] of [[0, 1], [5, 11], [shape[0] - 1, 1], [shape[0] - 9, 9], [3, 0]]) {
        const bytes = await checkpoint.rows(weight, row0, rows);
        assert.deepEqual(
          bytes,
          whole.subarray(row0 * rowBytes, (row0 + rows) * rowBytes),
          `${weight} ${row0}`,
        );
      }
    }
    checkpoint.close();
  });
}

Deno.test("openCheckpoint() serves F16 and BF16 as stored and blocks as F32 from a GGUF file", async () => {
  const checkpoint = await openCheckpoint(fixture("tiny-llama-bpe.gguf"));
  const dtype = (name: string) => checkpoint.weights.get(`model.layers.0.${name}.weight`)!.dtype;
  assert.equal(dtype("self_attn.q_proj"), "F32");
  assert.equal(dtype("self_attn.v_proj"), "BF16");
  assert.equal(dtype("self_attn.o_proj"), "F16");
  assert.equal(dtype("input_layernorm"), "F32");
  assert.equal(checkpoint.quantised, true);
  assert.equal(checkpoint.kind, "gguf");
  assert.deepEqual(checkpoint.files(), []);
  checkpoint.close();
});

Deno.test("openCheckpoint() makes a config from GGUF metadata that parseConfig() accepts", async () => {
  const configs = await Promise.all(TINY.map(async (name) => {
    const checkpoint = await openCheckpoint(fixture(name));
    checkpoint.close();
    return parseConfig(checkpoint.config);
  }));
  const [spm, bpe, qwen2, gpt2] = configs;
  assert(spm.type === "llama" && bpe.type === "llama" && qwen2.type === "llama" && gpt2.type === "gpt2");
  assert.deepEqual([spm.variant, spm.heads, spm.kvHeads, spm.headDim, spm.tied], ["llama", 3, 1, 32, true]);
  assert.deepEqual([bpe.tied, bpe.ropeTheta, bpe.normEps], [false, 500000, 1e-5]);
  assert.deepEqual(bpe.ropeScaling, {
    type: "llama3",
    factor: 32,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositions: 8192,
  });
  assert.deepEqual([qwen2.variant, qwen2.attentionBias, qwen2.outputBias], ["qwen2", true, false]);
  assert.deepEqual([gpt2.width, gpt2.inner, gpt2.maxPositions, gpt2.tied], [32, 128, 64, true]);
});

testWith(
  SMOLLM2,
  NEEDS.smollm2,
  "openCheckpoint() gives SmolLM2 as transformers does, bit for bit",
  async (path) => {
    const checkpoint = await openCheckpoint(path);
    const { tensors, config } = fixtureJson("smollm2-tensors.json");
    const { rms_norm_eps: eps, rope_parameters: rope, ...same } = config;
    for (const [key, value] of Object.entries(same)) assert.deepEqual(checkpoint.config[key], value, key);
    assert.equal(checkpoint.config.rms_norm_eps, 1e-5);
    assert.equal(Math.fround(1e-5), Math.fround(eps));
    assert.equal(checkpoint.config.rope_theta, rope.rope_theta);
    await checkTensors(checkpoint, tensors);
    const q = await checkpoint.rows("model.layers.7.self_attn.q_proj.weight", 100, 50);
    const whole = await gather(checkpoint.pieces("model.layers.7.self_attn.q_proj.weight"));
    assert.deepEqual(q, whole.subarray(100 * 576 * 4, 150 * 576 * 4));
    checkpoint.close();
  },
);

/** Writes a two-shard model; returns the names of its tensors and their bytes. */
async function writeShards(folder: string): Promise<Record<string, Uint8Array>> {
  const tensors: Record<string, Uint8Array> = {};
  const weightMap: Record<string, string> = {};
  for (const [i, names] of [["a", "b"], ["c"]].entries()) {
    const file = `model-0000${i + 1}-of-00002.safetensors`;
    await writeSafetensors(
      join(folder, file),
      names.map((name) => {
        tensors[name] = crypto.getRandomValues(new Uint8Array(24));
        weightMap[name] = file;
        return {
          name,
          dtype: name === "b" ? "BF16" : "F32",
          shape: name === "b" ? [6, 2] : [3, 2],
          data: () => [tensors[name]],
        };
      }),
    );
  }
  await Deno.writeTextFile(join(folder, "config.json"), '{"model_type":"gpt2"}');
  await Deno.writeTextFile(
    join(folder, "model.safetensors.index.json"),
    JSON.stringify({ metadata: {}, weight_map: weightMap }),
  );
  return tensors;
}

Deno.test("openCheckpoint() reads sharded folders, and hashes them as it does a single file", async () => {
  await inFolder(async (folder) => {
    const tensors = await writeShards(folder);
    const checkpoint = await openCheckpoint(folder);
    assert.deepEqual(checkpoint.weights.get("b"), { name: "b", dtype: "BF16", shape: [6, 2] });
    for (const [name, bytes] of Object.entries(tensors)) {
      assert.deepEqual(await gather(checkpoint.pieces(name, 7)), bytes);
    }
    assert.deepEqual(await checkpoint.rows("c", 1, 2), tensors.c.subarray(8, 24));
    await assert.rejects(checkpoint.rows("c", 2, 2), /Cannot read rows 2 to 4 of "c" \[3,2\]/);
    await assert.rejects(checkpoint.rows("d", 0, 1), /No weight "d" in/);
    const hash = await checkpoint.hash({ cache: false });
    checkpoint.close();

    const single = join(folder, "single");
    await writeSafetensors(
      join(single, "model.safetensors"),
      ["c", "b", "a"].map((name) => ({
        name,
        dtype: name === "b" ? "BF16" : "F32",
        shape: name === "b" ? [6, 2] : [3, 2],
        data: () => [tensors[name]],
      })),
    );
    await Deno.writeTextFile(join(single, "config.json"), "{}");
    const other = await openCheckpoint(single);
    assert.equal(await other.hash({ cache: false }), hash);
    other.close();
  });
});

Deno.test("openCheckpoint() names what is missing or wrong in a folder", async () => {
  await inFolder(async (folder) => {
    const refuses = (path: string, message: RegExp) =>
      assert.rejects(
        openCheckpoint(path),
        (error) => error instanceof InputError && message.test(error.message),
      );
    const index = join(folder, "model.safetensors.index.json");
    await refuses(join(folder, "none"), /^No such model: /);
    await refuses(folder, /^No config\.json in /);
    await Deno.writeTextFile(join(folder, "config.json"), "{");
    await refuses(folder, /^Cannot read .*config\.json: /);
    await Deno.writeTextFile(join(folder, "config.json"), "{}");
    await refuses(folder, /^No model\.safetensors and no model\.safetensors\.index\.json in /);
    await refuses(join(folder, "config.json"), /is not a model$/);
    await Deno.writeTextFile(join(folder, "pytorch_model.bin"), "");
    await assert.rejects(
      openCheckpoint(folder),
      (error: InputError) => /Convert pytorch_model\.bin/.test(error.hint!),
    );

    await writeShards(folder);
    const good = JSON.parse(await Deno.readTextFile(index));
    const withMap = async (changes: Record<string, unknown>, message: RegExp) => {
      const weight_map = { ...good.weight_map, ...changes };
      await Deno.writeTextFile(index, JSON.stringify({ weight_map }));
      await refuses(folder, message);
    };
    await withMap({ d: "model-00001-of-00002.safetensors" }, /^Tensor "d" is not in model-00001-of-00002/);
    await withMap(
      { c: undefined, b: undefined },
      /^Tensor "b" in model-00001-of-00002\S+ of .* is not in model/,
    );
    await withMap(
      { d: "model-00003-of-00003.safetensors" },
      /^Missing shard model-00003-of-00003\.safetensors in /,
    );
    await withMap({ d: "../x.safetensors" }, /"\.\.\/x\.safetensors", not a file name$/);
  });
});

testWith(
  STORIES,
  NEEDS.stories,
  "openCheckpoint() reads stories260k and lists its small files",
  async (path) => {
    const checkpoint = await openCheckpoint(path);
    assert.equal(checkpoint.weights.size, 47);
    assert.equal(checkpoint.quantised, false);
    const names = checkpoint.files().map((file) => file.split("/").at(-1));
    assert.deepEqual(names, ["config.json", "tokenizer.json", "tokenizer_config.json"]);
    let elements = 0;
    for (const { name, shape } of checkpoint.weights.values()) {
      const bytes = await gather(checkpoint.pieces(name));
      assert.equal(bytes.length, 4 * shape.reduce((product, size) => product * size, 1));
      elements += bytes.length / 4;
    }
    assert.equal(elements, 260_032);
    checkpoint.close();
  },
);

Deno.test("hash() remembers, and computes anew when the file changes", async () => {
  await inFolder(async (folder) => {
    const before = Deno.env.get("XDG_CACHE_HOME");
    Deno.env.set("XDG_CACHE_HOME", join(folder, "cache"));
    try {
      const path = join(folder, "model");
      const write = (byte: number) =>
        writeSafetensors(join(path, "model.safetensors"), [
          { name: "a", dtype: "F32", shape: [1], data: () => [Uint8Array.of(byte, 0, 0, 0)] },
        ]);
      const hash = async () => {
        const checkpoint = await openCheckpoint(path);
        const value = await checkpoint.hash();
        checkpoint.close();
        return value;
      };
      await write(1);
      await Deno.writeTextFile(join(path, "config.json"), "{}");
      const first = await hash();
      assert.match(first, /^[0-9a-f]{64}$/);
      const cache = join(folder, "cache", "emend", "hashes.json");
      const stored = JSON.parse(await Deno.readTextFile(cache));
      assert.deepEqual(Object.values(stored), [first]);
      // The cache is believed …
      await Deno.writeTextFile(cache, JSON.stringify({ [Object.keys(stored)[0]]: "0".repeat(64) }));
      assert.equal(await hash(), "0".repeat(64));
      // … unless it is damaged, or the file has changed.
      await Deno.writeTextFile(cache, "{");
      assert.equal(await hash(), first);
      await write(2);
      await Deno.utime(join(path, "model.safetensors"), 1, 1);
      assert.notEqual(await hash(), first);
    } finally {
      if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
      else Deno.env.set("XDG_CACHE_HOME", before);
    }
  });
});
