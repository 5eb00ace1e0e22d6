import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "npm:fast-check@4.10.2";
import { openCheckpoint } from "../../engine/io/checkpoint.ts";
import { InputError } from "../../engine/io/errors.ts";
import { measureChanges, writeCheckpoint } from "../../patches/checkpoint.ts";
import { comparePatches } from "../../patches/diff.ts";
import { diffCheckpoints } from "../../patches/diff_models.ts";
import { factorsWithin } from "../../patches/low_rank.ts";
import { innerProduct } from "../../patches/norms.ts";
import { type LowRankDelta, readPatch, type TensorDelta, writePatch } from "../../patches/patch.ts";
import { stackPatches } from "../../patches/stack.ts";
import { fixture, inFolder } from "../engine/io/_data.ts";
import { normals } from "../engine/ops/_reference.ts";
import { assertSameFiles, filesOf, modelFolder, noisePatch } from "./_models.ts";

/** Sums of f64 in another order. */
const SUMS = 1e-12;

/** left · rightᵀ in stored order, by its definition. */
function byHand(delta: TensorDelta): number[] {
  if (delta.kind === "dense") return [...delta.values];
  const { layout, left, right, ranks: { length: rank } } = delta;
  const [rows, cols] = layout === "out_in" ? [left, right] : [right, left];
  return Array.from(
    { length: rows.length / rank },
    (_, r) =>
      Array.from({ length: cols.length / rank }, (_, c) => {
        let sum = 0;
        for (let k = 0; k < rank; k++) sum += rows[r * rank + k] * cols[c * rank + k];
        return sum;
      }),
  ).flat();
}

Deno.test("innerProduct() is Σ ΔA ∘ ΔB for every mixture of factors and dense changes", () => {
  const delta = fc.record({
    rank: fc.nat(3),
    layout: fc.constantFrom("out_in", "in_out"),
    seed: fc.nat(999),
  });
  const make = ({ rank, seed }: { rank: number; seed: number }, layout: "out_in" | "in_out"): TensorDelta => {
    const f32 = (n: number, k: number) => Float32Array.from(normals(n, seed + k));
    const common = { tensor: "w", role: "r", layout };
    if (rank === 0) {
      return { kind: "dense", ...common, shape: layout === "out_in" ? [5, 4] : [4, 5], values: f32(20, 0) };
    }
    return {
      kind: "low-rank",
      ...common,
      left: f32(5 * rank, 1),
      right: f32(4 * rank, 2),
      ranks: Array(rank).fill(null),
    };
  };
  fc.assert(
    fc.property(delta, delta, delta, (a, b, c) => {
      const layout = a.layout as "out_in" | "in_out";
      const [x, y, z] = [a, b, c].map((d) => make(d, layout));
      const sums = byHand(x).map((v, i) => v + byHand(y)[i]);
      const wanted = sums.reduce((sum, v, i) => sum + v * byHand(z)[i], 0);
      const got = innerProduct([x, y], [z]);
      assert.ok(Math.abs(got - wanted) <= SUMS * 1e3, `${got} for ${wanted}`);
    }),
    { numRuns: 100, seed: 1 },
  );
});

Deno.test("comparePatches() tells tensors, norms, angles and requests", async () => {
  const base = await openCheckpoint(modelFolder("gpt2-tiny"));
  const one = await noisePatch(base, { "layer.0.mlp.down": 2, "layer.1.mlp.up": 1 }, 1);
  const two = await noisePatch(base, { "layer.1.mlp.up": 1 }, 500);
  const same = comparePatches(one, one);
  assert.ok(
    Math.abs(same.cosine! - 1) < SUMS && same.tensors.every(({ cosine }) => Math.abs(cosine! - 1) < SUMS),
  );
  assert.deepEqual(same.requests, { both: one.requests, onlyA: [], onlyB: [] });
  const [delta] = two.deltas as [LowRankDelta];
  const back = { ...two, deltas: [{ ...delta, left: delta.left.map((x) => -2 * x) }] };
  const opposite = comparePatches(two, back);
  assert.ok(Math.abs(opposite.cosine! + 1) < SUMS);
  assert.equal(opposite.tensors[0].b!.frobenius / opposite.tensors[0].a!.frobenius, 2);

  const { sameBase, tensors, requests, cosine } = comparePatches(one, stackPatches([two, back]));
  assert.ok(sameBase && Math.abs(cosine!) < 1);
  assert.deepEqual(tensors.map(({ tensor, a, b }) => [tensor, a?.rank, b?.rank]), [
    ["transformer.h.0.mlp.c_proj.weight", 2, undefined],
    ["transformer.h.1.mlp.c_fc.weight", 1, 2],
  ]);
  assert.deepEqual([requests.both.length, requests.onlyA.length, requests.onlyB.length], [0, 1, 2]);
  const measured = await measureChanges(base, one.deltas);
  measured.forEach(({ frobenius }, i) => assert.ok(Math.abs(tensors[i].a!.frobenius / frobenius - 1) < 1e-9));
  const narrow = { ...one, deltas: [{ ...one.deltas[0], right: new Float32Array(4) }] as LowRankDelta[] };
  assert.throws(() => comparePatches(one, narrow), /as \[128, 32\] and \[2, 32\]$/);
  assert.equal(comparePatches(one, { ...two, base: { hash: "0".repeat(64), name: "x" } }).sameBase, false);
  base.close();
});

for (const name of ["gpt2-tiny", "llama-tiny", "gpt2-tiny-sharded", "smollm2-tiny"]) {
  Deno.test(`diffCheckpoints() of ${name} is a patch that gives the other one back`, async () => {
    await inFolder(async (folder) => {
      const path = (file: string) => join(folder, file);
      const base = await openCheckpoint(modelFolder(name));
      // Fine-tuning moves every tensor, norms and embeddings too.
      const deltas = [...base.weights.values()].map(({ name, shape }, i): TensorDelta => {
        const values = Float32Array.from(normals(shape.reduce((a, b) => a * b, 1), i, 0.01));
        return { kind: "dense", tensor: name, role: name, shape, values };
      });
      await writeCheckpoint(path("tuned"), base, deltas);
      const tuned = await openCheckpoint(path("tuned"));
      const progress: number[] = [];
      const { compared, different, patch, onlyBase, onlyOther } = await diffCheckpoints(base, tuned, {
        keep: true,
        maxRank: 2,
        onProgress: (done, total) => progress.push(done / total),
      });
      assert.deepEqual([compared, onlyBase, onlyOther], [deltas.length, [], []]);
      assert.equal(progress.at(-1), 1);
      assert.ok(
        different.every(({ inexact, rank, changed }) => inexact === 0 && rank === undefined && changed > 0),
      );
      await writePatch(path("p"), patch!);
      const read = await readPatch(path("p"));
      assert.deepEqual(read, patch);
      await writeCheckpoint(path("again"), base, read.deltas);
      assertSameFiles(await filesOf(path("again")), await filesOf(path("tuned")));
      // What was measured is what was there.
      const measured = new Map(
        (await measureChanges(base, read.deltas)).map((change) => [change.tensor, change]),
      );
      for (const { tensor, frobenius, relative } of different) {
        const own = measured.get(tensor) ?? measured.get(tensor.replace("transformer.", ""))!;
        assert.ok(
          Math.abs(frobenius / own.frobenius - 1) < 1e-5 && Math.abs(relative / own.relative - 1) < 1e-5,
        );
      }
      tuned.close();
      base.close();
    });
  });

  Deno.test(`diffCheckpoints() finds the ranks that were merged into ${name}`, async () => {
    await inFolder(async (folder) => {
      const base = await openCheckpoint(modelFolder(name));
      const made = await noisePatch(base, { "layer.0.mlp.down": 1, "layer.1.mlp.up": 3 }, 7);
      await writeCheckpoint(join(folder, "edited"), base, made.deltas);
      const edited = await openCheckpoint(join(folder, "edited"));
      const { different, patch } = await diffCheckpoints(base, edited, { keep: true, maxRank: 4 });
      assert.deepEqual(different.map(({ rank }) => rank), [1, 3]);
      const { tensors } = comparePatches(made, patch!);
      // Nearer to what was merged than rounding to 8 binary digits moved it.
      for (const { cosine } of tensors) assert.ok(1 - cosine! < 1e-4, `${cosine}`);
      const plain = await diffCheckpoints(base, edited, { keep: true });
      assert.deepEqual(plain.patch!.deltas.map(({ kind }) => kind), ["dense", "dense"]);
      const few = await diffCheckpoints(base, edited, { keep: true, maxRank: 2 });
      assert.deepEqual(few.patch!.deltas.map(({ kind }) => kind), ["low-rank", "dense"]);
      assert.equal((await diffCheckpoints(base, edited)).patch, undefined);
      edited.close();
      base.close();
    });
  });
}

Deno.test("diffCheckpoints() of equal models is empty, of strange ones told or refused", async () => {
  const [base, other, gguf] = await Promise.all(
    [modelFolder("gpt2-tiny"), modelFolder("llama-tiny"), fixture("tiny-gpt2.gguf")].map(openCheckpoint),
  );
  const same = await diffCheckpoints(base, base, { keep: true });
  assert.deepEqual([same.different, same.patch], [[], undefined]);
  const { compared, onlyBase, onlyOther } = await diffCheckpoints(base, other);
  assert.equal(compared, 0);
  assert.equal(onlyBase.length, base.weights.size);
  assert.equal(onlyOther.length, other.weights.size);
  await assert.rejects(
    diffCheckpoints(base, other, { keep: true }),
    (error) => error instanceof InputError && /is no edit of .*: they do not share "/.test(error.message),
  );
  // Quantised tensors are compared as they are served.
  assert.deepEqual((await diffCheckpoints(gguf, gguf)).different, []);
  [base, other, gguf].forEach((checkpoint) => checkpoint.close());
});

Deno.test("factorsWithin() takes the least rank within the bound, and gives up above the most", () => {
  const [rows, cols] = [30, 20];
  const product = (rank: number) => {
    const u = normals(rows * rank, 1), v = normals(cols * rank, 2);
    return Float32Array.from({ length: rows * cols }, (_, i) => {
      const r = Math.floor(i / cols), c = i % cols;
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += u[r * rank + k] * v[c * rank + k];
      return sum;
    });
  };
  for (const rank of [1, 2, 5]) {
    const matrix = product(rank);
    const found = factorsWithin(matrix, rows, cols, 1e-4, 6)!;
    assert.equal(found.rank, rank);
    const delta: TensorDelta = {
      kind: "low-rank",
      tensor: "w",
      role: "r",
      layout: "out_in",
      left: found.left,
      right: found.right,
      ranks: Array(rank).fill(null),
    };
    byHand(delta).forEach((x, i) => assert.ok(Math.abs(x - matrix[i]) < 1e-5));
    assert.equal(factorsWithin(matrix, rows, cols, 1e-4, rank - 1), undefined);
  }
  const noise = Float32Array.from(normals(rows * cols, 9));
  assert.equal(factorsWithin(noise, rows, cols, 1, 10), undefined);
  // The best rank is that of the whole when nothing may be lost.
  assert.equal(factorsWithin(noise, rows, cols, 1e-4, 20)!.rank, 20);
});
