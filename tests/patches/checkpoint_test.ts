import assert from "node:assert/strict";
import { join } from "node:path";
import { openCheckpoint } from "../../engine/io/checkpoint.ts";
import { fromFloat32, toFloat32 } from "../../engine/io/convert.ts";
import { parseSafetensors, writeSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";
import { loadModel } from "../../engine/models/load.ts";
import { measureChanges, writeCheckpoint } from "../../patches/checkpoint.ts";
import { applyPatch, type DenseDelta, patchOf } from "../../patches/patch.ts";
import { withGpu } from "../_gpu.ts";
import { fixture, inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { normals } from "../engine/ops/_reference.ts";
import {
  baseTensor,
  editOf,
  filesOf,
  logitsOf,
  modelFolder,
  NO_TOKENIZER,
  noise,
  readTensor,
} from "./_models.ts";

const IDS = [[14, 56, 63, 76, 6], [78, 51, 77]];
/** The same f32 weights up to one rounding each, summed in another order. */
const SUMS = 1e-5;
/** Largest relative error of rounding to nearest: half a unit in the last of 24, 11 and 8 digits. */
const HALF_UNIT = { F32: 2 ** -24, F16: 2 ** -11, BF16: 2 ** -8 };
/** Below F16's smallest normal number the error is at most half of the smallest subnormal one. */
const SUBNORMAL = 2 ** -25;

for (const base of ["gpt2-tiny", "llama-tiny", "gpt2-tiny-sharded", "smollm2-tiny"]) {
  Deno.test(
    `writeCheckpoint() of ${base} is the overlaid model, rounded to the base's dtype`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(base), NO_TOKENIZER);
      const role = "layer.1.mlp.down";
      const patch = await patchOf(model, editOf([noise(model, role, 1, 1), noise(model, role, 2, 3)]));
      const [{ tensor }] = patch.deltas;
      const { dtype } = model.checkpoint.weights.get(tensor)!;
      await inFolder(async (folder) => {
        const out = join(folder, "edited");
        const progress: number[] = [];
        const changes = await writeCheckpoint(out, model.checkpoint, patch.deltas, {
          onProgress: (bytes, total) => progress.push(bytes / total),
        });
        assert.equal(progress.at(-1), 1);
        assert.deepEqual(progress, progress.toSorted((a, b) => a - b));
        const sameFiles = Object.keys(await filesOf(model.checkpoint.path)).filter((f) =>
          !f.startsWith("reference")
        );
        assert.deepEqual(
          Object.keys(await filesOf(out)).filter((f) => sameFiles.includes(f)).sort(),
          sameFiles.sort(),
        );

        using edited = await loadModel(gpu, out, NO_TOKENIZER);
        const rounding = await checkValues(model, edited, tensor, HALF_UNIT[dtype], changes);
        const own = await logitsOf(edited, IDS);
        // W' = W + ΔW + what rounding did: laid over the base together, the two are the checkpoint.
        using _patch = applyPatch(model, patch);
        const difference = relativeError(await logitsOf(model, IDS), own);
        using _rounding = applyPatch(model, {
          ...patch,
          deltas: [{ ...rounding, role, layout: layoutOf(patch) }],
        });
        const error = relativeError(await logitsOf(model, IDS), own);
        assert.ok(error < SUMS, `${error}, and ${difference} with rounding`);
        if (dtype === "F32") assert.ok(difference < SUMS, `${difference}`);
      });
    }),
  );
}

type Loaded = Awaited<ReturnType<typeof loadModel>>;
type Changes = Awaited<ReturnType<typeof writeCheckpoint>>;

function layoutOf(patch: { deltas: { layout?: DenseDelta["layout"] }[] }) {
  return patch.deltas[0].layout;
}

/** All other tensors are the base's bytes; the changed one is within half a unit. Returns the rounding. */
async function checkValues(base: Loaded, edited: Loaded, tensor: string, halfUnit: number, changes: Changes) {
  for (const { name, shape, dtype } of base.checkpoint.weights.values()) {
    assert.equal(edited.checkpoint.weights.get(name)!.dtype, dtype);
    if (name === tensor) continue;
    const [was, is] = [base, edited].map((m) => m.checkpoint.rows(name, 0, shape[0]));
    assert.deepEqual(await is, await was, name);
  }
  const was = await baseTensor(base, tensor), is = await baseTensor(edited, tensor);
  const { shape } = base.checkpoint.weights.get(tensor)!;
  const delta = deltaByHand(base);
  const values = new Float32Array(was.length);
  let base2 = 0, delta2 = 0, error2 = 0;
  for (let i = 0; i < was.length; i++) {
    const wanted = was[i] + delta[i];
    values[i] = is[i] - wanted;
    assert.ok(Math.abs(values[i]) <= halfUnit * Math.abs(wanted) * (1 + 1e-6) + SUBNORMAL, `element ${i}`);
    base2 += was[i] ** 2;
    delta2 += delta[i] ** 2;
    error2 += (is[i] - was[i] - delta[i]) ** 2;
  }
  assert.equal(changes.length, 1);
  const [{ frobenius, relative, realised, ...change }] = changes;
  assert.deepEqual(change, { tensor, shape, rank: 3 });
  const close = (got: number, want: number) =>
    assert.ok(Math.abs(got - want) <= 1e-9 * want, `${got} for ${want}`);
  close(frobenius, Math.sqrt(delta2));
  close(relative, Math.sqrt(delta2 / base2));
  close(realised.error, Math.sqrt(error2 / delta2));
  return { kind: "dense" as const, tensor, shape, values };
}

/** Σ left·rightᵀ of the test's two deltas in f64, in stored order, apart from the code under test. */
function deltaByHand(model: Loaded): Float64Array {
  const { out, in: inner, layout } = model.weights.get("layer.1.mlp.down")!;
  const sum = new Float64Array(out * inner);
  for (
    const { rank, left, right } of [
      noise(model, "layer.1.mlp.down", 1, 1),
      noise(model, "layer.1.mlp.down", 2, 3),
    ]
  ) {
    for (let o = 0; o < out; o++) {
      for (let i = 0; i < inner; i++) {
        const at = layout === "out_in" ? o * inner + i : i * out + o;
        for (let r = 0; r < rank; r++) sum[at] += left[o * rank + r] * right[i * rank + r];
      }
    }
  }
  return sum;
}

Deno.test("writeCheckpoint() keeps buffers, companions, metadata and names without prefix", async () => {
  await inFolder(async (folder) => {
    const base = join(folder, "base"), out = join(folder, "out");
    const w = Float32Array.from(normals(12, 1));
    const mask = new Uint8Array(9).fill(1);
    await Deno.mkdir(base);
    await writeSafetensors(join(base, "model.safetensors"), [
      { name: "h.0.attn.bias", dtype: "U8", shape: [3, 3], data: () => [mask] },
      { name: "h.0.mlp.c_proj.weight", dtype: "BF16", shape: [4, 3], data: () => [fromFloat32("BF16", w)] },
    ], { format: "pt", note: "mine" });
    for (const name of ["config.json", "merges.txt", "LICENSE"]) {
      await Deno.writeTextFile(join(base, name), "{}");
    }
    await Deno.writeTextFile(join(base, "junk.bin"), "");
    const checkpoint = await openCheckpoint(base);
    const left = Float32Array.from(normals(3, 2)), right = Float32Array.from(normals(4, 3));
    const tensor = "transformer.h.0.mlp.c_proj.weight", role = "layer.0.mlp.down", layout = "in_out" as const;
    const factors = { kind: "low-rank" as const, tensor, role, layout, left, right, ranks: [0] };
    const dense = {
      kind: "dense" as const,
      tensor,
      role,
      layout,
      shape: [4, 3],
      values: new Float32Array(12).fill(2),
    };
    const changes = await writeCheckpoint(out, checkpoint, [factors, dense]);
    assert.deepEqual(await measureChanges(checkpoint, [factors, dense]), changes);
    assert.equal(changes[0].tensor, "h.0.mlp.c_proj.weight");
    assert.equal(changes[0].rank, 3);
    assert.deepEqual(Object.keys(await filesOf(out)).sort(), [
      "LICENSE",
      "config.json",
      "merges.txt",
      "model.safetensors",
    ]);
    const { values } = await readTensor(join(out, "model.safetensors"), "h.0.mlp.c_proj.weight");
    const before = toFloat32("BF16", fromFloat32("BF16", w));
    const wanted = before.map((w, i) => w + right[Math.floor(i / 3)] * left[i % 3] + 2);
    assert.deepEqual(values, toFloat32("BF16", fromFloat32("BF16", wanted)));
    const file = await parseSafetensors(await openFile(join(out, "model.safetensors")));
    assert.deepEqual(file.metadata, { format: "pt", note: "mine" });
    assert.deepEqual(await file.read(file.entries.get("h.0.attn.bias")!), mask);
    file.source.close();
    checkpoint.close();
  });
});

Deno.test("writeCheckpoint() refuses changes that do not belong to the checkpoint", async () => {
  await inFolder(async (folder) => {
    const out = join(folder, "out");
    const checkpoint = await openCheckpoint(modelFolder("gpt2-tiny-sharded"));
    const write = (change: Partial<DenseDelta>) => {
      const tensor = "transformer.ln_f.bias", role = "final.norm.bias";
      const values = new Float32Array(32);
      return writeCheckpoint(out, checkpoint, [{
        kind: "dense",
        tensor,
        role,
        shape: [32],
        values,
        ...change,
      }]);
    };
    await assert.rejects(write({ tensor: "nothing" }), /has no tensor "nothing"$/);
    await assert.rejects(write({ tensor: "lm_head.weight" }), /its embedding, so a change of the head alone/);
    await assert.rejects(write({ shape: [33] }), /is \[33\]; .* has it as \[32\]$/);
    await assert.rejects(write({ values: new Float32Array(32).fill(1e5) }), /out of the range of F16$/);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    const [change] = await write({ values: new Float32Array(32) });
    assert.deepEqual([change.frobenius, change.relative, change.realised.error], [0, 0, 0]);
    checkpoint.close();
  });
});

Deno.test("writeCheckpoint() never writes over its base, nor over a folder that is no model", async () => {
  await inFolder(async (folder) => {
    const base = join(folder, "base"), link = join(folder, "link");
    await Deno.mkdir(base);
    for (const file of ["config.json", "model.safetensors"]) {
      await Deno.copyFile(join(modelFolder("llama-tiny"), file), join(base, file));
    }
    await Deno.symlink(base, link);
    const before = await filesOf(base);
    const checkpoint = await openCheckpoint(base);
    await assert.rejects(writeCheckpoint(base, checkpoint, []), /its base model is there$/);
    await assert.rejects(writeCheckpoint(link, checkpoint, []), /its base model is there$/);
    await assert.rejects(writeCheckpoint(folder, checkpoint, []), /holds something other than a model$/);
    const linked = await openCheckpoint(link);
    await assert.rejects(writeCheckpoint(base, linked, []), /its base model is there$/);
    linked.close();
    assert.deepEqual(await filesOf(base), before);
    checkpoint.close();
    const gguf = join(folder, "gguf");
    await Deno.mkdir(gguf);
    await Deno.copyFile(fixture("tiny-gpt2.gguf"), join(gguf, "m.gguf"));
    await Deno.writeTextFile(join(gguf, "config.json"), "{}");
    const quantised = await openCheckpoint(join(gguf, "m.gguf"));
    await assert.rejects(writeCheckpoint(gguf, quantised, []), /its base model is there$/);
    quantised.close();
  });
});

for (const name of ["tiny-llama-spm.gguf", "tiny-llama-bpe.gguf", "tiny-qwen2.gguf", "tiny-gpt2.gguf"]) {
  Deno.test(
    `writeCheckpoint() of ${name} is a folder that computes the same`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, fixture(name));
      const patch = await patchOf(model, editOf([noise(model, "layer.0.mlp.down", 1, 1)]));
      await inFolder(async (folder) => {
        await writeCheckpoint(folder, model.checkpoint, patch.deltas);
        using edited = await loadModel(gpu, folder);
        assert.deepEqual(edited.config, model.config);
        const text = "The Eiffel Tower, built in 1889, isn't in Rome.";
        const ids = model.tokenizer.encode(text);
        assert.deepEqual(edited.tokenizer.encode(text), ids);
        assert.deepEqual([edited.tokenizer.bos, edited.tokenizer.eos], [
          model.tokenizer.bos,
          model.tokenizer.eos,
        ]);
        using _patch = applyPatch(model, patch);
        const sequence = [ids.slice(0, 12)];
        const error = relativeError(await logitsOf(edited, sequence), await logitsOf(model, sequence));
        assert.ok(error < SUMS, `${error}`);
      });
    }),
  );
}

Deno.test("writeCheckpoint() killed while it writes leaves the old output whole", async () => {
  await inFolder(async (folder) => {
    const out = join(folder, "out"), path = modelFolder("gpt2-tiny-sharded");
    const checkpoint = await openCheckpoint(path);
    const delta = (value: number): DenseDelta => {
      const values = new Float32Array(32).fill(value);
      return { kind: "dense", tensor: "transformer.ln_f.bias", role: "final.norm.bias", shape: [32], values };
    };
    await writeCheckpoint(out, checkpoint, [delta(1)]);
    const before = await filesOf(out);
    const module = (name: string) => JSON.stringify(new URL(`../../${name}`, import.meta.url).href);
    for (const share of [0.1, 0.5, 1]) {
      const code = `import { openCheckpoint } from ${module("engine/io/checkpoint.ts")};
        import { writeCheckpoint } from ${module("patches/checkpoint.ts")};
        await writeCheckpoint(${JSON.stringify(out)}, await openCheckpoint(${JSON.stringify(path)}), [], {
          onProgress: (bytes, total) => bytes >= ${share} * total && Deno.kill(Deno.pid, "SIGKILL"),
        });`;
      const child = await new Deno.Command(Deno.execPath(), { args: ["eval", code], stderr: "piped" })
        .output();
      assert.equal(child.signal, "SIGKILL", new TextDecoder().decode(child.stderr));
      assert.deepEqual(await filesOf(out), before);
    }
    // What the killed runs left beside it does not stop the next one.
    await writeCheckpoint(out, checkpoint, [delta(2)]);
    assert.notDeepEqual(await filesOf(out), before);
    checkpoint.close();
  });
});
