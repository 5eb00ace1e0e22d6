import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "npm:fast-check@4.10.2";
import { openCheckpoint } from "../../engine/io/checkpoint.ts";
import { InputError } from "../../engine/io/errors.ts";
import { loadModel } from "../../engine/models/load.ts";
import { applyPatches } from "../../patches/applied.ts";
import { writeCheckpoint } from "../../patches/checkpoint.ts";
import {
  applyPatch,
  type Patch,
  patchOf,
  readPatch,
  type TensorDelta,
  writePatch,
} from "../../patches/patch.ts";
import { findParts, partsOf, stackPatches, withoutParts } from "../../patches/stack.ts";
import { withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { normals } from "../engine/ops/_reference.ts";
import { assertSameFiles, editOf, filesOf, logitsOf, modelFolder, NO_TOKENIZER, noise } from "./_models.ts";

const IDS = [[14, 56, 63, 76, 6], [78, 51, 77]];

/** Twenty patches of one or two ranks in all three layers, some of them in two tensors. */
async function twenty(model: Awaited<ReturnType<typeof loadModel>>): Promise<Patch[]> {
  return await Promise.all(Array.from({ length: 20 }, (_, i) => {
    const down = noise(model, `layer.${i % 3}.mlp.down`, 1 + i % 2, 10 * i);
    const more = i % 5 === 0 ? [noise(model, "layer.1.mlp.up", 1, 10 * i + 5)] : [];
    return patchOf(model, editOf([down, ...more]));
  }));
}

Deno.test(
  "A stack of 20 patches with the 7th removed equals never having applied it, bit for bit",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const patches = await twenty(model);
    const others = patches.filter((_, i) => i !== 6);
    const base = await logitsOf(model, IDS);

    // On the device, one overlay after another.
    let never: Float32Array;
    {
      using stack = new DisposableStack();
      for (const patch of others) stack.use(applyPatch(model, patch));
      never = await logitsOf(model, IDS);
    }
    assert.ok(relativeError(never, base) > 0.1, "the patches do something");
    {
      const applied = patches.map((patch) => applyPatch(model, patch));
      assert.notDeepEqual(await logitsOf(model, IDS), never, "the 7th does something");
      applied[6][Symbol.dispose]();
      assert.deepEqual(await logitsOf(model, IDS), never);
      applied.forEach((one) => one[Symbol.dispose]());
      assert.deepEqual(await logitsOf(model, IDS), base);
    }

    await inFolder(async (folder) => {
      // As a file.
      const path = (name: string) => join(folder, name);
      const all = stackPatches(patches);
      await writePatch(path("all"), all);
      const read = await readPatch(path("all"));
      assert.deepEqual(read, all);
      const without = withoutParts(read, [7]);
      await writePatch(path("without"), without);
      await writePatch(path("never"), stackPatches(others));
      assert.deepEqual(await Deno.readFile(path("without")), await Deno.readFile(path("never")));

      // On the device, the file's way.
      using _one = applyPatch(model, without);
      assert.ok(relativeError(await logitsOf(model, IDS), never) < 1e-5);

      // In the written checkpoint: the stack, the patches one by one, and what apply remembers.
      const { checkpoint } = model;
      await writeCheckpoint(path("a"), checkpoint, without.deltas);
      await writeCheckpoint(path("b"), checkpoint, others.flatMap(({ deltas }) => deltas));
      assertSameFiles(await filesOf(path("a")), await filesOf(path("b")));
      await applyPatches(path("c"), checkpoint, [without]);
      await applyPatches(path("d"), checkpoint, others);
      assertSameFiles(await filesOf(path("c")), await filesOf(path("d")));
      assertSameFiles({ m: (await filesOf(path("c")))["model.safetensors"] }, {
        m: (await filesOf(path("a")))["model.safetensors"],
      });
      await writeCheckpoint(path("e"), checkpoint, all.deltas);
      assert.notDeepEqual(await filesOf(path("e")), await filesOf(path("a")), "the 7th does something");
    });
  }),
);

Deno.test(
  "A stack of ranks and dense changes of one matrix lies on a model as its parts do, bit for bit",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("llama-tiny"), NO_TOKENIZER);
    const role = "layer.1.mlp.down";
    const low = await Promise.all(
      [1, 2].map((seed) => patchOf(model, editOf([noise(model, role, 1, seed)]))),
    );
    const [delta] = low[0].deltas;
    const values = Float32Array.from(normals(32 * 88, 9, 0.05));
    const dense: TensorDelta = {
      kind: "dense",
      tensor: delta.tensor,
      role,
      layout: "out_in",
      shape: [32, 88],
      values,
    };
    const parts = [low[0], { ...low[0], deltas: [dense] }, low[1]];
    let oneByOne: Float32Array;
    {
      using stack = new DisposableStack();
      for (const part of parts) stack.use(applyPatch(model, part));
      oneByOne = await logitsOf(model, IDS);
    }
    await inFolder(async (folder) => {
      await writePatch(join(folder, "p"), stackPatches(parts));
      using _stack = applyPatch(model, await readPatch(join(folder, "p")));
      assert.deepEqual(await logitsOf(model, IDS), oneByOne);
    });
  }),
);

const BASE = { hash: "0123456789abcdef".repeat(4), name: "m" };
const request = (i: number) => ({ prompt: "{} is in", subject: `S${i}`, target: " T" });

/** A patch of one request; ranks above 0 are factors of [4, 3], 0 is dense. */
function small(seed: number, changes: [tensor: string, rank: number][], method = "rome"): Patch {
  const deltas = changes.map(([tensor, rank], i): TensorDelta => {
    const f32 = (n: number, k: number) => Float32Array.from(normals(n, 100 * seed + 10 * i + k));
    const role = `role of ${tensor}`, layout = "out_in" as const;
    return rank === 0 ? { kind: "dense", tensor, role, layout, shape: [4, 3], values: f32(12, 1) } : {
      kind: "low-rank",
      tensor,
      role,
      layout,
      left: f32(4 * rank, 1),
      right: f32(3 * rank, 2),
      ranks: Array.from({ length: rank }, (_, r) => r === 0 ? 0 : null),
    };
  });
  return {
    base: { ...BASE, name: `m${seed % 2}` },
    modelType: "llama",
    method,
    hparams: { seed },
    requests: [request(seed)],
    deltas,
    version: `0.0.${seed}`,
  };
}

Deno.test("stackPatches() gives each part back as it was, whatever mixture of ranks and dense changes", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "p");
    const change = fc.tuple(fc.constantFrom("a", "b"), fc.nat(3));
    const list = fc.array(fc.uniqueArray(change, { selector: ([t]) => t, minLength: 1, maxLength: 2 }), {
      minLength: 1,
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(list, fc.nat(5), async (changes, drop) => {
        const patches = changes.map((c, i) => small(i, c as [string, number][], i % 3 ? "rome" : "memit"));
        const stack = stackPatches(patches);
        await writePatch(path, stack);
        const read = await readPatch(path);
        assert.deepEqual(partsOf(read), patches);
        assert.deepEqual(findParts(read, patches[0]), [1]);
        if (patches.length < 2) return;
        const n = drop % patches.length;
        const rest = patches.filter((_, i) => i !== n);
        assert.deepEqual(withoutParts(read, [n + 1]), stackPatches(rest));
        // A stack of stacks is the stack of their parts.
        assert.deepEqual(
          stackPatches([stackPatches(patches.slice(0, 1 + n)), ...patches.slice(1 + n)]),
          stack,
        );
      }),
      { numRuns: 150, seed: 1 },
    );
  });
});

Deno.test("stackPatches() keeps provenance, and format version 1 where a reader of it is right", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "p");
    const version = async (patch: Patch) => {
      await writePatch(path, patch);
      const bytes = await Deno.readFile(path);
      return /"format_version":"(\d)"/.exec(new TextDecoder().decode(bytes.subarray(8, 4000)))![1];
    };
    const [one, two] = [small(1, [["w", 1]]), small(2, [["w", 2], ["v", 0]])];
    const stack = stackPatches([one, two]);
    assert.deepEqual(stack.requests, [request(1), request(2)]);
    assert.deepEqual(stack.deltas.map(({ tensor }) => tensor), ["w", "v"]);
    const [w] = stack.deltas;
    assert.ok(w.kind === "low-rank");
    assert.deepEqual(w.ranks, [0, 1, null]);
    assert.deepEqual([stack.method, stack.hparams, stack.base.name], ["rome", {}, "m1"]);
    assert.equal(await version(stack), "1");
    assert.equal(await version(stackPatches([one, small(3, [["w", 0]])])), "2");
    assert.equal(stackPatches([one, small(3, [["w", 1]], "memit")]).method, "stack");
    assert.equal(stackPatches([one]), one);
  });
});

Deno.test("stackPatches() and its readers refuse what does not fit together", () => {
  const refuse = (run: () => unknown, message: RegExp) =>
    assert.throws(run, (error) => error instanceof InputError && message.test(error.message));
  const one = small(1, [["w", 1]]), two = small(2, [["w", 1]]);
  refuse(() => stackPatches([]), /^A stack needs at least one patch$/);
  const other = { ...two, base: { hash: "f".repeat(64), name: "n" } };
  refuse(() => stackPatches([one, other]), /patch 1 is for 01234567… \(m1\), patch 2 for ffffffff… \(n\)$/);
  const moved = { ...two, deltas: [{ ...two.deltas[0], role: "another" }] };
  refuse(() => stackPatches([one, moved]), /disagree about the role of "w"$/);
  const [delta] = two.deltas;
  assert.ok(delta.kind === "low-rank");
  const wide = { ...two, deltas: [{ ...delta, right: new Float32Array(5) }] };
  refuse(() => stackPatches([one, wide]), /changes of "w" that are \[4, 3\] and \[4, 5\]$/);
  const stack = stackPatches([one, two, one]);
  refuse(() => withoutParts(stack, [4]), /^There is no patch 4: there are 3$/);
  refuse(() => withoutParts(stack, [0]), /^There is no patch 0: there are 3$/);
  refuse(() => withoutParts(stack, [1, 2, 3]), /needs at least one patch$/);
  refuse(() => findParts(stack, small(3, [["w", 1]]), "x"), /^x is not among these patches$/);
  refuse(() => findParts(stack, one, "x"), /^x is there 2 times, as patches 1, 3$/);
  assert.deepEqual(findParts(stack, two), [2]);
  const negated = { ...two, deltas: [{ ...delta, left: delta.left.map((x) => -x) }] };
  refuse(() => findParts(stack, negated, "x"), /not among/);
});

Deno.test("applyPatches() refuses patches of another base, and never touches it", async () => {
  await inFolder(async (folder) => {
    const checkpoint = await openCheckpoint(modelFolder("llama-tiny"));
    const out = join(folder, "out");
    await assert.rejects(
      applyPatches(out, checkpoint, [small(1, [["w", 1]])], { names: ["p.safetensors"] }),
      /^InputError: p\.safetensors was made for model 01234567… \(m1\); this model is .* \(llama-tiny\)$/,
    );
    const mine = { ...small(1, [["w", 1]]), base: { hash: await checkpoint.hash(), name: "llama-tiny" } };
    await assert.rejects(applyPatches(out, checkpoint, [mine]), /has no tensor "w"$/);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    checkpoint.close();
  });
});
