/** Models and patches that are damaged or somebody else's: each is refused by name, with exit code 2. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { writeStatistics } from "../../editors/statistics.ts";
import { type Patch, writePatch } from "../../patches/patch.ts";
import { smallStatistics } from "../editors/_statistics.ts";
import { inFolder } from "../engine/io/_data.ts";
import { modelFolder } from "../patches/_models.ts";
import { ATLAS, cacheAt, EDIT, emendJson, refused, ROOT } from "./_run.ts";

const WEIGHTS = "model.safetensors";

/** A copy of the embedded model in a new folder; `change` may damage it. */
async function withCopy(run: (base: string) => Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    for (const name of ["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"]) {
      await Deno.copyFile(join(ATLAS, name), join(folder, name));
    }
    await run(folder);
  });
}

async function changeConfig(folder: string, change: Record<string, unknown>): Promise<void> {
  const path = join(folder, "config.json");
  const config = JSON.parse(await Deno.readTextFile(path));
  await Deno.writeTextFile(path, JSON.stringify({ ...config, ...change }));
}

/** The weights' header as text, and where their data begins. */
function headerOf(bytes: Uint8Array): { header: string; data: number } {
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  return { header: new TextDecoder().decode(bytes.subarray(8, 8 + length)), data: 8 + length };
}

const generate = (model: string) => ["generate", "--model", model, "--prompt", "Paris is"];

Deno.test("a model folder is refused when its files are missing, cut or of another make", async () => {
  await withCopy(async (folder) => {
    const weights = join(folder, WEIGHTS), config = join(folder, "config.json");
    const bytes = await Deno.readFile(weights);
    await Deno.writeFile(weights, bytes.subarray(0, bytes.length >> 1));
    await refused(generate(folder), /model\.safetensors.*/);
    await Deno.writeFile(weights, bytes.subarray(0, 5));
    await refused(generate(folder), /model\.safetensors.*/);
    await Deno.writeFile(weights, bytes);
    await changeConfig(folder, { model_type: "mamba" });
    await refused(generate(folder), /mamba/);
    await Deno.remove(config);
    await refused(generate(folder), /^error: No config\.json in .*\nGive a folder in Hugging Face layout$/m);
    await Deno.writeTextFile(config, "{");
    await refused(generate(folder), /config\.json/);
    await Deno.writeTextFile(join(folder, "m.gguf"), "GGUF");
    await refused(generate(join(folder, "m.gguf")), /m\.gguf/);
  });
});

Deno.test("a tensor that is missing, misshapen or not finite is refused by name", async () => {
  await withCopy(async (folder) => {
    const weights = join(folder, WEIGHTS);
    const bytes = await Deno.readFile(weights);
    const { header, data } = headerOf(bytes);
    const name = "transformer.h.3.mlp.c_fc.weight";

    const renamed = bytes.slice();
    renamed.set(
      new TextEncoder().encode(header.replace(`"${name}"`, `"${name.replace("c_fc", "c_xx")}"`)),
      8,
    );
    await Deno.writeFile(weights, renamed);
    await refused(generate(folder), /^error: .* has no tensor "transformer\.h\.3\.mlp\.c_fc\.weight"$/m);

    const [begin] = JSON.parse(header)[name].data_offsets;
    const spoilt = bytes.slice();
    new DataView(spoilt.buffer).setUint16(data + begin + 2 * 7, 0x7e00, true);
    await Deno.writeFile(weights, spoilt);
    await refused(generate(folder), /^error: Tensor "transformer\.h\.3\.mlp\.c_fc\.weight" .* element 7\n/);

    await Deno.writeFile(weights, bytes);
    await changeConfig(folder, { vocab_size: 4000 });
    await refused(generate(folder), /^error: .* has 4096 tokens, the model's vocabulary 4000$/m);
    await changeConfig(folder, { vocab_size: 5000 });
    await refused(generate(folder), /^error: Tensor "transformer\.wte\.weight" .* asks for \[5000, 256\]$/m);
  });
});

Deno.test("a model without a tokenizer is refused when text is to be read", async () => {
  await refused(generate(modelFolder("gpt2-tiny")), /tokenizer/);
});

Deno.test("statistics of another model or layer are refused, and missing ones name the command", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "s.safetensors");
    const edit = (...flags: string[]) => [...EDIT, "--stats", path, ...flags];
    await refused(edit(), /^error: No such file: .*s\.safetensors$/m);
    await Deno.copyFile(join(ATLAS, "statistics/layer-1.safetensors"), path);
    await refused(
      edit("--set", "layers=[2]"),
      /s\.safetensors does not fit: it is of layer 1, layer 2 is wanted\nMake statistics with the stats command$/m,
    );
    await writeStatistics(path, smallStatistics(4));
    await refused(
      edit(),
      /s\.safetensors does not fit: it was made from model aaaaaaaaaaaa, .* is [0-9a-f]{12}\n/,
    );
    await Deno.writeTextFile(path, "no statistics");
    await refused(edit(), /^error: .*s\.safetensors/);
    // An empty cache: what other runs left in the user's is nothing to rely on.
    await refused(
      [...EDIT, "--set", "layers=[3]"],
      /no statistics for layer 3 of .*\nMake them once: deno run -A cli\.ts stats --model \S+ --layers 3 --corpus/,
      await cacheAt(folder),
    );
  });
});

Deno.test("a patch for another base is refused with both names", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "p.safetensors");
    const patch: Patch = {
      base: { hash: "0123456789abcdef".repeat(4), name: "gpt2-xl" },
      modelType: "gpt2",
      method: "rome",
      hparams: {},
      requests: [],
      deltas: [{
        kind: "low-rank",
        tensor: "transformer.h.1.mlp.c_proj.weight",
        role: "layer.1.mlp.down",
        layout: "in_out",
        left: new Float32Array(256),
        right: new Float32Array(1024),
        ranks: [null],
      }],
      version: "0.1.0",
    };
    await writePatch(path, patch);
    const { stderr } = await refused(
      [...generate("atlas"), "--patch", path],
      /p\.safetensors was made for model 01234567… \(gpt2-xl\); this model is [0-9a-f]{8}… \(model\)\n/,
    );
    assert.match(stderr, /--model$/m);
  });
});

Deno.test("a trained editor of another model, or of another method, is refused with both names", async () => {
  const editors = join(ROOT, "atlas/editors"), other = join(ROOT, "tests/fixtures/io/tiny-llama-spm.gguf");
  const [mend, serac, easyedit] = ["mend", "serac", "serac-easyedit"].map((name) =>
    join(editors, `${name}.safetensors`)
  );
  const edit = (method: string, editor: string, model = "atlas") => [
    ...EDIT.map((flag) => flag === "atlas" ? model : flag),
    ...["--method", method, ...method === "mend" ? ["--editor", editor] : ["--set", `editor=${editor}`]],
  ];
  // Of serac's file tests/editors/serac_test.ts says the same.
  await refused(
    edit("mend", mend, other),
    /was trained for model \(8f1a9c41…\); this model is tiny-.* \(\w{8}…\)\n/,
  );
  await refused(edit("mend", serac), /serac\.safetensors is not a trained editor\n/);
  await refused(edit("serac", mend), /mend\.safetensors is not a trained SERAC editor$/m);
  await refused(edit("serac", easyedit), /trained by the objective of serac-easyedit, not of serac$/m);
});

Deno.test("a memory of another encoder is refused with both names, and so is one whose encoder is not there", () =>
  inFolder(async (folder) => {
    const [encoder, facts, patch] = ["sentences", "facts.jsonl", "p.safetensors"].map((name) =>
      join(folder, name)
    );
    const tiny = modelFolder("bert-tiny");
    const names = ["config.json", WEIGHTS, "tokenizer.json", "sentence_bert_config.json"];
    const copyTo = async (to: string) => {
      await Deno.mkdir(to, { recursive: true });
      for (const name of names) await Deno.copyFile(join(tiny, name), join(to, name));
    };
    await copyTo(encoder);
    const two = [["{} met death in", "Giovanni Lanfranco", "Paris"], [
      "{} speaks",
      "Danielle Darrieux",
      "English",
    ]];
    const lines = two.map(([prompt, subject, target]) => JSON.stringify({ prompt, subject, target }));
    await Deno.writeTextFile(facts, lines.join("\n"));
    await emendJson([
      ...["edit", "--model", "atlas", "--method", "ice", "--requests", facts, "--patch", patch],
      ...["--set", `encoder=${encoder}`, "--set", "limit=0.9"],
    ]);
    const env = await cacheAt(join(folder, "cache"));
    const ask = [...generate("atlas"), "--patch", patch];
    await refused(ask, /^error: There is no sentence encoder at .*sentences\n.*encoder=states/, env);
    const cached = join(folder, "cache/emend/models/sentences");
    await copyTo(cached);
    const weights = await Deno.readFile(join(cached, WEIGHTS));
    weights[weights.length - 1] ^= 1;
    await Deno.writeFile(join(cached, WEIGHTS), weights);
    await refused(
      ask,
      /^error: The memory was made with encoder [0-9a-f]{8}… \(sentences\); the one here is [0-9a-f]{8}…$/m,
      env,
    );
  }));
