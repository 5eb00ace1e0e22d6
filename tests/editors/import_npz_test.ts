import assert from "node:assert/strict";
import { join } from "node:path";
import { collectStatistics } from "../../editors/collect.ts";
import { importStatistics } from "../../editors/import_npz.ts";
import type { Tokenizer } from "../../engine/io/tokenizer.ts";
import { loadModel } from "../../engine/models/load.ts";
import { withGpu } from "../_gpu.ts";
import { fixture as ioFixture, inFolder } from "../engine/io/_data.ts";
import { modelFolder, NO_TOKENIZER } from "../patches/_models.ts";
import { type NpyArray, npz } from "./_npz.ts";

const FOLDER = new URL("../fixtures/statistics/", import.meta.url);
const NPZ = new URL("gpt2-tiny.transformer.h.1.mlp.c_proj_float32_mom2_60.npz", FOLDER).pathname;
const TARGET = { modelHash: "m", modelName: "tiny", layer: 1, width: 128, maxLength: 64 };

/** A tokenizer for tiny models: a character a token, as in the fixture's script. */
const LETTERS = { encode: (text: string) => [...text].map((c) => c.charCodeAt(0) % 97) } as Tokenizer;

Deno.test("importStatistics() reads what ROME's code cached", async () => {
  const { origin, lower } = await importStatistics(NPZ, TARGET);
  assert.deepEqual({ ...origin, corpusHash: origin.corpusHash.length }, {
    modelHash: "m",
    layer: 1,
    width: 128,
    corpusHash: 64,
    corpusName: "gpt2-tiny.transformer.h.1.mlp.c_proj_float32_mom2_60.npz",
    tokens: 2121,
    documents: 60,
    maxLength: 64,
    complete: true,
    imported: "gpt2-tiny.transformer.h.1.mlp.c_proj_float32_mom2_60.npz",
  });
  assert.equal(lower.length, 128 * 129 / 2);
});

Deno.test(
  "collectStatistics() gives the statistics of ROME's code on the same documents",
  withGpu(async (gpu) => {
    using loaded = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const model: typeof loaded = Object.create(loaded, { tokenizer: { value: LETTERS } });
    const documents: string[] = JSON.parse(await Deno.readTextFile(new URL("gpt2-tiny.json", FOLDER)));
    const [{ origin, lower }] = await collectStatistics(model, {
      layers: [1],
      tokens: 1e6,
      documents,
      corpus: { name: "letters", hash: "c" },
      modelHash: "m",
      maxLength: 512,
      converged: 1,
    });
    const theirs = await importStatistics(NPZ, TARGET);
    assert.deepEqual([origin.tokens, origin.documents], [theirs.origin.tokens, theirs.origin.documents]);
    let most = 0;
    const at = (i: number) => i * (i + 3) / 2;
    for (let i = 0, e = 0; i < 128; i++) {
      for (let j = 0; j <= i; j++, e++) {
        const size = Math.sqrt(theirs.lower[at(i)] * theirs.lower[at(j)]);
        most = Math.max(most, Math.abs(lower[e] - theirs.lower[e]) / size);
      }
    }
    // Both are f32 sums of f32 keys; the two forwards agree to a few 1e-6.
    assert.ok(most < 1e-5, `largest difference ${most}`);
  }),
);

Deno.test("importStatistics() refuses another layer, width or dtype, and what is no second moment", async () => {
  await inFolder(async (folder) => {
    const refuse = async (message: RegExp, change = {}, path = NPZ) => {
      await assert.rejects(importStatistics(path, { ...TARGET, ...change }), (error: Error) => {
        assert.equal(error.name, "InputError", error.stack);
        assert.match(error.message, message);
        return true;
      });
    };
    await refuse(/does not fit: its name is of layer 1, layer 2 is wanted$/, { layer: 2 });
    await refuse(/its square is \[128,128\], keys of tiny have 96 numbers$/, { width: 96 });
    await refuse(/No such file/, {}, join(folder, "none.npz"));
    const other = ioFixture("peer.npz");
    await refuse(/peer\.npz does not fit: its square is \[.*\], keys of tiny have 128 numbers$/, {}, other);

    const store = async (name: string, arrays: Record<string, NpyArray>) => {
      const path = join(folder, name);
      await Deno.writeFile(path, npz(arrays));
      return path;
    };
    const count = ["<i8", [], BigInt64Array.of(5n)] as NpyArray;
    const square = (values: number[]) => ["<f4", [2, 2], Float32Array.from(values)] as NpyArray;
    const small = { width: 2 };
    const made = async (values: number[]) =>
      await store("x.npz", { "mom2.mom2": square(values), "mom2.count": count });
    const good = await importStatistics(await made([5, 1, 1, 10]), { ...TARGET, ...small });
    assert.deepEqual(good.lower, Float32Array.of(1, 0.2, 2));
    assert.equal(good.origin.documents, 5, "without sample_size, at most a document a token");
    await refuse(/element \(1, 1\) is -1$/, small, await made([5, 1, 1, -1]));
    await refuse(/element \(0, 0\) is NaN$/, small, await made([NaN, 1, 1, 1]));
    await refuse(/element \(1, 1\) is Infinity$/, small, await made([1, 1, 1, Infinity]));
    await refuse(/element \(1, 0\) is 1, \(0, 1\) is 2$/, small, await made([5, 2, 1, 10]));
    await refuse(
      /is not a cached second moment: it has no array "mom2\.count"$/,
      small,
      await store("y.npz", { "mom2.mom2": square([1, 0, 0, 1]) }),
    );
    const half = ["<f2", [2, 2], new Uint16Array(4)] as NpyArray;
    await refuse(
      /array "mom2\.mom2" of .*z\.npz: its type is "<f2", not f4, f8 or i8$/,
      small,
      await store("z.npz", { "mom2.mom2": half, "mom2.count": count }),
    );
    const none = ["<i8", [], BigInt64Array.of(0n)] as NpyArray;
    await refuse(
      /has counted 0 tokens$/,
      small,
      await store("n.npz", { "mom2.mom2": square([1, 0, 0, 1]), "mom2.count": none }),
    );
  });
});
