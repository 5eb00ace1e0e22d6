import assert from "node:assert/strict";
import { join } from "node:path";
import { applyDeltas } from "../../editors/edit.ts";
import { InputError } from "../../engine/io/errors.ts";
import { loadModel } from "../../engine/models/load.ts";
import { applyPatch, type Patch, patchOf, readPatch, requireBase, writePatch } from "../../patches/patch.ts";
import { withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { normals } from "../engine/ops/_reference.ts";
import { editOf, logitsOf, modelFolder, NO_TOKENIZER, noise } from "./_models.ts";

const IDS = [[14, 56, 63, 76, 6], [78, 51, 77]];
/** f32 sums in another order: the overlays of a patch are one matrix, those of an edit several. */
const SUMS = 1e-5;

for (const name of ["gpt2-tiny", "llama-tiny", "smollm2-tiny"]) {
  Deno.test(
    `applyPatch() of ${name} gives the edit's logits, and its disposal the base's bit for bit`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), NO_TOKENIZER);
      const edit = editOf([
        noise(model, "layer.1.mlp.down", 1, 1),
        noise(model, "layer.1.mlp.down", 2, 3),
      ]);
      const before = await logitsOf(model, IDS);
      let edited: Float32Array;
      {
        using _edit = applyDeltas(model, edit.deltas);
        edited = await logitsOf(model, IDS);
      }
      const moved = relativeError(edited, before);
      assert.ok(moved > 0.01, `The edit moves the logits by ${moved} only`);
      const patch = await patchOf(model, edit);
      await inFolder(async (folder) => {
        const path = join(folder, "p.safetensors");
        await writePatch(path, patch);
        const read = await readPatch(path);
        await requireBase(read, model);
        using applied = applyPatch(model, read);
        const error = relativeError(await logitsOf(model, IDS), edited);
        assert.ok(error < SUMS, `${error}`);
        applied[Symbol.dispose]();
        assert.deepEqual(await logitsOf(model, IDS), before);
      });
    }),
  );
}

Deno.test(
  "applyPatch() stacks patches, and each comes off alone",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const one = await patchOf(model, editOf([noise(model, "layer.0.mlp.down", 1, 1)]));
    const two = await patchOf(model, editOf([noise(model, "layer.0.mlp.down", 2, 5)]));
    const before = await logitsOf(model, IDS);
    const first = applyPatch(model, one);
    const withOne = await logitsOf(model, IDS);
    const second = applyPatch(model, two);
    const withBoth = await logitsOf(model, IDS);
    first[Symbol.dispose]();
    const withTwo = await logitsOf(model, IDS);
    {
      using _one = applyPatch(model, one);
      const error = relativeError(await logitsOf(model, IDS), withBoth);
      assert.ok(error < SUMS, `${error}`);
    }
    assert.deepEqual(await logitsOf(model, IDS), withTwo);
    second[Symbol.dispose]();
    assert.deepEqual(await logitsOf(model, IDS), before);
    using _one = applyPatch(model, one);
    assert.deepEqual(await logitsOf(model, IDS), withOne);
  }),
);

for (
  const [name, role] of [["gpt2-tiny", "mlp.down"], ["gpt2-tiny", "mlp.up"], ["llama-tiny", "mlp.down"], [
    "llama-tiny",
    "mlp.up",
  ]]
) {
  Deno.test(
    `applyPatch() lays a dense change of ${role} over ${name} as its factors would lie`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), NO_TOKENIZER);
      const patch = await patchOf(model, editOf([noise(model, `layer.1.${role}`, 2, 1)]));
      const before = await logitsOf(model, IDS);
      let expected: Float32Array;
      {
        using _factors = applyPatch(model, patch);
        expected = await logitsOf(model, IDS);
      }
      using dense = applyPatch(model, densely(patch));
      const error = relativeError(await logitsOf(model, IDS), expected);
      assert.ok(error < SUMS, `${error}`);
      dense[Symbol.dispose]();
      assert.deepEqual(await logitsOf(model, IDS), before);
    }),
  );
}

Deno.test(
  "patchOf() puts the ranks of one tensor side by side and remembers whose they are",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const deltas = [noise(model, "layer.1.mlp.down", 2, 1), noise(model, "layer.1.mlp.down", 1, 3)];
    const [delta] = (await patchOf(model, editOf(deltas))).deltas;
    assert.ok(delta.kind === "low-rank");
    assert.equal(delta.tensor, "transformer.h.1.mlp.c_proj.weight");
    assert.equal(delta.layout, "in_out");
    assert.deepEqual(delta.ranks, [0, 0, 1]);
    const { out } = model.weights.get("layer.1.mlp.down")!;
    for (let o = 0; o < out; o++) {
      assert.deepEqual(
        [...delta.left.subarray(3 * o, 3 * o + 3)],
        [deltas[0].left[2 * o], deltas[0].left[2 * o + 1], deltas[1].left[o]],
      );
    }
    const joint = {
      ...editOf(deltas),
      requests: editOf(deltas).requests.slice(0, 1),
      deltas: deltas.slice(0, 1),
    };
    const three = { ...joint, requests: Array(3).fill(joint.requests[0]) };
    const two = { ...joint, requests: Array(2).fill(joint.requests[0]) };
    const ranksOf = async (edit: typeof joint) => {
      const [delta] = (await patchOf(model, edit)).deltas;
      return delta.kind === "low-rank" ? delta.ranks : undefined;
    };
    assert.deepEqual(await ranksOf(joint), [0, 0]);
    assert.deepEqual(await ranksOf(two), [0, 1]);
    assert.deepEqual(await ranksOf(three), [null, null]);
    await assert.rejects(
      patchOf(model, { ...joint, deltas: [] }),
      /changes no weight cannot be saved as a patch$/,
    );
  }),
);

Deno.test(
  "requireBase() and applyPatch() refuse another base in one clear line",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    using other = await loadModel(gpu, modelFolder("llama-tiny"), NO_TOKENIZER);
    const patch = await patchOf(model, editOf([noise(model, "layer.1.mlp.down", 1, 1)]));
    const [made, this_] = [await model.checkpoint.hash(), await other.checkpoint.hash()].map((h) =>
      h.slice(0, 8)
    );
    await assert.rejects(requireBase(patch, other, "paris.safetensors"), (error) => {
      assert.ok(error instanceof InputError);
      assert.equal(
        error.message,
        `paris.safetensors was made for model ${made}… (gpt2-tiny); this model is ${this_}… (llama-tiny)`,
      );
      return true;
    });
    await requireBase(patch, model);
    assert.throws(
      () => applyPatch(other, patch),
      /"transformer\.h\.1\.mlp\.c_proj\.weight" \(layer\.1\.mlp\.down\)/,
    );
    const [delta] = patch.deltas;
    assert.ok(delta.kind === "low-rank");
    const short = { ...patch, deltas: [{ ...delta, left: delta.left.subarray(1) }] };
    assert.throws(() => applyPatch(model, short), /as \[31, 128\]; in this model it is \[32, 128\]$/);
  }),
);

Deno.test(
  "applyPatch() changes a tied head without its embedding",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const patch = await patchOf(model, editOf([noise(model, "head", 1, 1)]));
    assert.equal(patch.deltas[0].tensor, "lm_head.weight");
    const before = await logitsOf(model, IDS);
    {
      using _patch = applyPatch(model, patch);
      assert.ok(relativeError(await logitsOf(model, IDS), before) > 0.01);
    }
    assert.deepEqual(await logitsOf(model, IDS), before);
  }),
);

/** The same change as whole matrices in stored order. */
function densely(patch: Patch): Patch {
  const deltas = patch.deltas.map((delta): Patch["deltas"][0] => {
    if (delta.kind === "dense") return delta;
    const { tensor, role, layout, left, right, ranks: { length: rank } } = delta;
    const [rows, cols] = layout === "out_in" ? [left, right] : [right, left];
    const shape = [rows.length / rank, cols.length / rank];
    const values = new Float32Array(shape[0] * shape[1]);
    for (let i = 0; i < values.length; i++) {
      const row = Math.floor(i / shape[1]), col = i % shape[1];
      for (let r = 0; r < rank; r++) values[i] += rows[row * rank + r] * cols[col * rank + r];
    }
    return { kind: "dense", tensor, role, layout, shape, values };
  });
  return { ...patch, deltas };
}

Deno.test("writePatch() and readPatch() keep every value, and equal patches are equal bytes", async () => {
  await inFolder(async (folder) => {
    const f32 = (n: number, seed: number) => Float32Array.from(normals(n, seed));
    const patch: Patch = {
      base: { hash: "0123456789abcdef".repeat(4), name: "gpt2" },
      modelType: "gpt2",
      method: "memit",
      hparams: { v_lr: 0.5, layers: [3, 4], nested: { b: 1, a: "é" } },
      requests: [{ prompt: "{} é in", subject: "Zoë", target: " Rome", true: " Paris" }, {
        prompt: "{} is",
        subject: "x",
        target: " y",
      }],
      deltas: [
        {
          kind: "low-rank",
          tensor: "h.1.w",
          role: "layer.1.mlp.down",
          layout: "in_out",
          left: f32(10, 1),
          right: f32(6, 2),
          ranks: [1, null],
        },
        {
          kind: "dense",
          tensor: "h.2.w",
          role: "layer.2.mlp.up",
          layout: "out_in",
          shape: [3, 2],
          values: f32(6, 3),
        },
        { kind: "dense", tensor: "ln_f.bias", role: "final.norm.bias", shape: [4], values: f32(4, 4) },
      ],
      version: "0.1.0",
    };
    const [a, b] = [join(folder, "a"), join(folder, "b")];
    await writePatch(a, patch);
    const read = await readPatch(a);
    assert.deepEqual(read, patch);
    const { layers, nested, v_lr } = patch.hparams as {
      layers: number[];
      nested: { a: string; b: number };
      v_lr: number;
    };
    await writePatch(b, { ...read, hparams: { nested: { a: nested.a, b: nested.b }, layers, v_lr } });
    assert.deepEqual(await Deno.readFile(b), await Deno.readFile(a));
    const broken = {
      ...patch,
      deltas: [{ ...patch.deltas[2], values: Float32Array.of(0, NaN, 0, 0) }],
    } as Patch;
    await assert.rejects(writePatch(a, broken), /the change of "ln_f\.bias" is not finite$/);
    assert.deepEqual(await readPatch(a), patch);
  });
});
