import assert from "node:assert/strict";
import { join } from "node:path";
import { type Checkpoint, openCheckpoint } from "../../engine/io/checkpoint.ts";
import { InputError } from "../../engine/io/errors.ts";
import { applyPatches, ORIGINALS, RECORD, STACK } from "../../patches/applied.ts";
import { writeCheckpoint } from "../../patches/checkpoint.ts";
import { writeOriginals } from "../../patches/originals.ts";
import type { Patch } from "../../patches/patch.ts";
import { revertPatches } from "../../patches/revert.ts";
import { fixture, inFolder, safetensorsBytes } from "../engine/io/_data.ts";
import { assertSameFiles, copyFolder, filesOf, modelFolder, noisePatch } from "./_models.ts";

/** Opens a model for the time of a function. */
async function withCheckpoint<T>(path: string, run: (checkpoint: Checkpoint) => Promise<T>): Promise<T> {
  const checkpoint = await openCheckpoint(path);
  try {
    return await run(checkpoint);
  } finally {
    checkpoint.close();
  }
}

const three = async (checkpoint: Checkpoint): Promise<Patch[]> => [
  await noisePatch(checkpoint, { "layer.1.mlp.down": 1 }, 100),
  await noisePatch(checkpoint, { "layer.0.mlp.down": 2, "layer.1.mlp.down": 1 }, 200),
  await noisePatch(checkpoint, { "layer.1.mlp.up": 1 }, 300),
];

async function refused(work: Promise<unknown>, message: RegExp) {
  await assert.rejects(work, (error) => {
    assert.ok(error instanceof InputError, String((error as Error).stack));
    assert.match(error.message, message);
    return true;
  });
}

/** A base whose header is like nobody else's: spaces, no format, a buffer, names without prefix. */
async function writeOddBase(folder: string): Promise<void> {
  await copyFolder(modelFolder("gpt2-tiny"), folder);
  const path = join(folder, "model.safetensors");
  const bytes = await Deno.readFile(path);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  delete header.__metadata__;
  const end = bytes.length - 8 - length;
  const renamed = Object.entries(header).map(([name, value]) => [name.replace(/^transformer\./, ""), value]);
  const odd = {
    "h.0.attn.bias": { dtype: "U8", shape: [5], data_offsets: [end, end + 5] },
    ...Object.fromEntries(renamed.reverse()),
    __metadata__: { note: "mine" },
  };
  const data = new Uint8Array([...bytes.subarray(8 + length), 1, 2, 3, 4, 5]);
  await Deno.writeFile(path, safetensorsBytes(`${JSON.stringify(odd, null, 3)}   `, data));
}

const BASES: [what: string, make: (folder: string) => Promise<void>][] = [
  ...["gpt2-tiny", "smollm2-tiny", "gpt2-tiny-sharded", "llama-tiny"].map((name) =>
    [name, (folder: string) => copyFolder(modelFolder(name), folder)] as typeof BASES[0]
  ),
  ["a base with an odd header", writeOddBase],
];

for (const [what, make] of BASES) {
  Deno.test(`revertPatches() gives the original bytes of ${what} back, without the base`, async () => {
    await inFolder(async (folder) => {
      const path = (name: string) => join(folder, name);
      await make(path("base"));
      const original = await filesOf(path("base"));
      const isModel = (name: string) => !/^(reference|config\.legacy)/.test(name);
      const applied = await withCheckpoint(path("base"), async (checkpoint) => {
        const patches = await three(checkpoint);
        const result = await applyPatches(path("edited"), checkpoint, patches);
        await applyPatches(path("never"), checkpoint, [patches[0], patches[2]]);
        return result;
      });
      assertSameFiles(await filesOf(path("base")), original);
      assert.equal(applied.changes.length, 3);
      // The user deletes the base.
      await Deno.remove(path("base"), { recursive: true });

      const { removed, left } = await revertPatches(path("edited"), path("out"));
      assert.deepEqual([removed, left], [3, []]);
      const names = Object.keys(original).filter(isModel).sort();
      const back = await filesOf(path("out"));
      assert.deepEqual(Object.keys(back).sort(), names);
      assertSameFiles(back, Object.fromEntries(names.map((name) => [name, original[name]])));

      // Without one of them it is the folder that never had it; a folder may replace itself.
      const partial = await revertPatches(path("edited"), path("edited"), { select: () => [2] });
      assert.deepEqual([partial.removed, partial.left.length], [1, 2]);
      assertSameFiles(await filesOf(path("edited")), await filesOf(path("never")));
      await revertPatches(path("edited"), path("edited"), { select: () => [1, 2] });
      assertSameFiles(await filesOf(path("edited")), back);
    });
  });
}

Deno.test("applyPatches() puts more patches on a folder that remembers some", async () => {
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    await withCheckpoint(modelFolder("smollm2-tiny"), async (base) => {
      const patches = await three(base);
      await applyPatches(path("all"), base, patches);
      await applyPatches(path("one"), base, patches.slice(0, 1));
      await withCheckpoint(path("one"), (one) => applyPatches(path("more"), one, patches.slice(1)));
      assertSameFiles(await filesOf(path("more")), await filesOf(path("all")));
      // A patch that was made on the edited model has that as its base.
      await withCheckpoint(path("one"), async (one) => {
        await applyPatches(path("next"), one, [await noisePatch(one, { "layer.0.mlp.up": 1 }, 5)]);
      });
      await revertPatches(path("next"), path("back"));
      const file = "model.safetensors";
      assert.deepEqual((await filesOf(path("back")))[file], (await filesOf(path("one")))[file]);
    });
  });
});

Deno.test("revertPatches() with the base gives its bytes, with and without a record", async () => {
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    const name = "model.safetensors";
    await withCheckpoint(modelFolder("smollm2-tiny"), async (base) => {
      const patches = await three(base);
      const original = await Deno.readFile(join(base.path, name));
      await writeCheckpoint(path("plain"), base, patches[0].deltas);
      await Deno.writeTextFile(path("plain/README.md"), "mine");
      await refused(revertPatches(path("plain"), path("out")), /plain has no record of applied patches$/);
      const { removed } = await revertPatches(path("plain"), path("out"), { base });
      assert.equal(removed, undefined);
      assertSameFiles({ m: (await filesOf(path("out")))[name] }, { m: original });
      assert.equal(await Deno.readTextFile(path("out/README.md")), "mine", "other files go along");
      await refused(
        revertPatches(path("plain"), path("x"), { base, select: () => [1] }),
        /has no record of applied patches, so none can come off alone$/,
      );
      await refused(revertPatches(path("plain"), base.path, { base }), /its base model is there$/);

      await applyPatches(path("edited"), base, patches);
      await applyPatches(path("never"), base, patches.slice(1));
      await Deno.remove(path(`edited/${ORIGINALS}`));
      await refused(
        revertPatches(path("edited"), path("x")),
        /Cannot read .*originals\.data: it is not there$/,
      );
      await revertPatches(path("edited"), path("x"), { base, select: () => [1] });
      assertSameFiles(await filesOf(path("x")), await filesOf(path("never")));
      await revertPatches(path("edited"), path("x"), { base });
      assertSameFiles({ m: (await filesOf(path("x")))[name] }, { m: original });

      await withCheckpoint(modelFolder("llama-tiny"), async (other) => {
        await refused(
          revertPatches(path("edited"), path("y"), { base: other }),
          /edited was made from model [0-9a-f]{8}…; .*llama-tiny is [0-9a-f]{8}…$/,
        );
        await refused(
          revertPatches(path("plain"), path("y"), { base: other }),
          /plain is no edit of .*llama-tiny: its .* is missing, not/,
        );
      });
    });
  });
});

for (const name of ["tiny-llama-bpe.gguf", "tiny-gpt2.gguf"]) {
  Deno.test(`revertPatches() of a model made from ${name}`, async () => {
    await inFolder(async (folder) => {
      const path = (file: string) => join(folder, file);
      const original = await Deno.readFile(fixture(name));
      await withCheckpoint(fixture(name), async (base) => {
        const patches = [
          await noisePatch(base, { "layer.0.mlp.down": 1 }, 1),
          await noisePatch(base, { "layer.0.mlp.up": 1 }, 2),
        ];
        await applyPatches(path("edited"), base, patches);
        await applyPatches(path("never"), base, patches.slice(1));
        await revertPatches(path("edited"), path("without"), { select: () => [1] });
        assertSameFiles(await filesOf(path("without")), await filesOf(path("never")));
        await revertPatches(path("edited"), path("again"), { base, select: () => [1] });
        assertSameFiles(await filesOf(path("again")), await filesOf(path("never")));
        await refused(
          revertPatches(path("edited"), path("x")),
          new RegExp(`made from the GGUF file ${name} and has not kept its bytes$`),
        );
        await revertPatches(path("edited"), path("copy.gguf"), { base });
        assert.deepEqual(await Deno.readFile(path("copy.gguf")), original);
      });
      assert.deepEqual(await Deno.readFile(fixture(name)), original);
    });
  });
}

Deno.test("revertPatches() refuses a folder that is not what apply wrote, and leaves it alone", async () => {
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    await withCheckpoint(modelFolder("smollm2-tiny"), async (base) => {
      await applyPatches(path("good"), base, await three(base));
    });
    const good = await filesOf(path("good"));
    const flipped = (name: string, at: number) => {
      const bytes = good[name].slice();
      bytes.set([bytes.at(at)! ^ 1], (at + bytes.length) % bytes.length);
      return bytes;
    };
    const record = JSON.parse(new TextDecoder().decode(good[RECORD]));
    const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
    const cases: [name: string, bytes: Uint8Array, message: RegExp][] = [
      ["model.safetensors", flipped("model.safetensors", -1), /weights of .* were changed after its patches/],
      [
        ORIGINALS,
        flipped(ORIGINALS, -1),
        /originals\.data is not the file that emend-patches\.json describes$/,
      ],
      [ORIGINALS, good[ORIGINALS].subarray(0, 999), /originals\.data is not the file that/],
      [STACK, flipped(STACK, -1), /emend-patches\.stack is not the file that/],
      [RECORD, good[RECORD].subarray(0, 99), /Cannot read .*emend-patches\.json: /],
      [RECORD, text({ ...record, edited_hash: "x" }), /bad edited_hash: it is not a SHA-256 in hex$/],
      [RECORD, text({ ...record, format_version: "9" }), /bad format_version/],
      [
        RECORD,
        text({ ...record, base: { ...record.base, hash: "0".repeat(64) } }),
        /does not give its base back$/,
      ],
      [RECORD, text([]), /expected a JSON object$/],
    ];
    for (const [name, bytes, message] of cases) {
      await Deno.writeFile(path(`good/${name}`), bytes);
      const before = await filesOf(path("good"));
      await refused(revertPatches(path("good"), path("good")), message);
      assertSameFiles(await filesOf(path("good")), before);
      await Deno.writeFile(path(`good/${name}`), good[name]);
    }
    assert.deepEqual((await Array.fromAsync(Deno.readDir(folder))).map((e) => e.name), ["good"]);
  });
});

Deno.test("revertPatches() writes nowhere that a lying folder may name", async () => {
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    await withCheckpoint(modelFolder("smollm2-tiny"), async (base) => {
      await applyPatches(path("edited"), base, await three(base));
      // Headers under names of files elsewhere, and a header that promises other tensors; sums made to fit.
      for (
        const [name, header] of [["../../evil.safetensors", "{}"], ["model.safetensors", "{}"], [
          "model.safetensors",
          '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        ]]
      ) {
        const file = path(`edited/${ORIGINALS}`);
        await writeOriginals(file, base, [], new Map([[name, safetensorsBytes(header, 0)]]));
        const bytes = await Deno.readFile(file);
        const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
        const record = JSON.parse(await Deno.readTextFile(path(`edited/${RECORD}`)));
        record.files[ORIGINALS] = { bytes: bytes.length, sha256: digest.toHex() };
        await Deno.writeTextFile(path(`edited/${RECORD}`), JSON.stringify(record));
        await refused(revertPatches(path("edited"), path("out")), /has not kept the header|belong to none/);
      }
    });
    assert.deepEqual((await Array.fromAsync(Deno.readDir(folder))).map((e) => e.name), ["edited"]);
  });
});

Deno.test("applyPatches() and revertPatches() killed while they write leave the old output whole", async () => {
  await inFolder(async (folder) => {
    const out = join(folder, "out"), path = modelFolder("gpt2-tiny-sharded");
    await withCheckpoint(path, async (base) => void await applyPatches(out, base, await three(base)));
    const before = await filesOf(out);
    const module = (name: string) => JSON.stringify(new URL(`../../${name}`, import.meta.url).href);
    const kill = "onProgress: (bytes, total) => bytes >= share * total && Deno.kill(Deno.pid, 'SIGKILL')";
    const runs = [
      `await applyPatches(out, await openCheckpoint(${JSON.stringify(path)}), [patch], { ${kill} });`,
      `await revertPatches(out, out, { ${kill} });`,
      `await revertPatches(out, out, { select: () => [1], ${kill} });`,
    ];
    for (const [i, run] of runs.entries()) {
      const code = `import { openCheckpoint } from ${module("engine/io/checkpoint.ts")};
        import { applyPatches } from ${module("patches/applied.ts")};
        import { readPatch } from ${module("patches/patch.ts")};
        import { revertPatches } from ${module("patches/revert.ts")};
        const out = ${JSON.stringify(out)}, share = ${[0.2, 0.6, 1][i]};
        const patch = await readPatch(out + "/${STACK}");
        ${run}`;
      const child = await new Deno.Command(Deno.execPath(), { args: ["eval", code], stderr: "piped" })
        .output();
      assert.equal(child.signal, "SIGKILL", new TextDecoder().decode(child.stderr));
      assertSameFiles(await filesOf(out), before);
    }
    // What the killed runs left beside it does not stop the next one.
    await revertPatches(out, out);
    assert.ok(!(RECORD in await filesOf(out)));
  });
});
