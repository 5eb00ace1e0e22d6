import assert from "node:assert/strict";
import { join } from "node:path";
import { readCollectState, writeCollectState } from "../../editors/collect_state.ts";
import { cachedStatisticsPath, findStatistics } from "../../editors/find_statistics.ts";
import {
  type LayerStatistics,
  readOrigin,
  readStatistics,
  requireStatistics,
  statisticsOf,
  writeStatistics,
} from "../../editors/statistics.ts";
import { InputError } from "../../engine/io/errors.ts";
import { writeSafetensors } from "../../engine/io/safetensors.ts";
import { loadModel } from "../../engine/models/load.ts";
import { withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { normals } from "../engine/ops/_reference.ts";
import { modelFolder, NO_TOKENIZER } from "../patches/_models.ts";
import { ATLAS } from "./_prompts.ts";
import { inCache, smallStatistics, solvePlainly } from "./_statistics.ts";

/** The error that a promise must end with: one sentence without a full stop. */
async function refusal(promise: Promise<unknown>): Promise<InputError> {
  const error = await promise.then(() => undefined, (error) => error);
  assert.ok(error instanceof InputError, String(error?.stack));
  assert.doesNotMatch(error.message, /\n|\.$/);
  return error;
}

Deno.test("readStatistics() reads what writeStatistics() wrote", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "new", "s.safetensors");
    const looks = [{ tokens: 20, median: 2.5, worst: 3 }];
    const settings = { tokens: 20, converged: 0.999 };
    const more = smallStatistics(5, { convergence: 0.99, looks, settings, imported: "x.npz" });
    for (const made of [smallStatistics(5), more]) {
      await writeStatistics(path, made);
      assert.deepEqual(await readStatistics(path), made);
      assert.deepEqual(await readOrigin(path), made.origin);
    }
  });
});

Deno.test("readStatistics() refuses a triangle of another dtype, naming both", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "s.safetensors");
    const { origin, lower } = smallStatistics(5);
    const data = () => [new Uint8Array(2 * lower.length)];
    const metadata = { format: "emend-statistics", format_version: "1", origin: JSON.stringify(origin) };
    await writeSafetensors(path, [{ name: "lower", dtype: "F16", shape: [lower.length], data }], metadata);
    const error = await refusal(readStatistics(path));
    assert.match(error.message, /s\.safetensors does not fit: its lower is F16, F32 is wanted$/);
    assert.match(error.hint!, /stats command/);
  });
});

Deno.test("readStatistics() refuses a file when it is something else, damaged or not finite", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "s.safetensors");
    const made = smallStatistics(5);
    const refuse = async (statistics: LayerStatistics) => {
      await writeStatistics(path, statistics);
      return (await refusal(readStatistics(path))).message;
    };
    assert.match(
      await refuse({ ...made, lower: made.lower.subarray(1) }),
      /14 numbers, not the triangle of /,
    );
    assert.match(await refuse({ ...made, lower: made.lower.with(3, NaN) }), /not finite, at element 3$/);
    const { modelHash: _, ...rest } = made.origin;
    const lacking = { ...made, origin: rest as typeof made.origin };
    assert.match(await refuse(lacking), /is not a statistics file: its metadata has a bad origin$/);
    await writeStatistics(path, made);
    const bytes = await Deno.readFile(path);
    await Deno.writeFile(path, bytes.subarray(0, bytes.length - 4));
    await refusal(readStatistics(path));
    await writeCollectState(path, {
      modelHash: "",
      corpusHash: "",
      maxLength: 1,
      layers: [0],
      tokens: 1,
      documents: 1,
      next: 4,
      looks: [[]],
      sums: [Float64Array.of(1)],
    });
    assert.match((await refusal(readStatistics(path))).message, /s\.safetensors is not a statistics file$/);
    assert.match((await refusal(readStatistics(join(folder, "none")))).message, /No such file/);
  });
});

Deno.test("readCollectState() reads what writeCollectState() wrote, and refuses statistics", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "s.partial");
    const state = {
      modelHash: "m",
      corpusHash: "c",
      maxLength: 9,
      layers: [1, 4],
      tokens: 20,
      documents: 3,
      next: 40,
      looks: [[{ tokens: 20, median: 1, worst: 2 }], []],
      sums: [Float64Array.of(1 / 3, 2), Float64Array.of(3, 4)],
      keys: [Float64Array.of(5), Float64Array.of(7)],
      last: [Float64Array.of(6), Float64Array.of(8)],
    };
    await writeCollectState(path, state);
    assert.deepEqual(await readCollectState(path), state);
    const { keys: _, last: __, ...early } = state;
    await writeCollectState(path, early);
    assert.deepEqual(await readCollectState(path), early);
    await writeStatistics(path, smallStatistics(3));
    await refusal(readCollectState(path));
  });
});

Deno.test(
  "solve() gives (C + ρ·tr(C)/F·I)⁻¹ k when statistics are small",
  withGpu(async (gpu) => {
    // 1e-6 in relation to condition 1e4 · 2⁻⁵³: what is left is C's f32, which both sides share.
    for (const [width, jitter] of [[8, 1e-6], [65, 1e-3]]) {
      const made = smallStatistics(width);
      using statistics = statisticsOf(gpu, [made]);
      assert.deepEqual(statistics.routes(), []);
      const key = Float64Array.from(normals(width, 3));
      const got = await statistics.solve(1, key, 1, jitter);
      assert.ok(relativeError(got, solvePlainly(made, key, jitter)) < 1e-6, `width ${width}`);
      const [route] = statistics.routes();
      assert.deepEqual([route.layer, route.jitter, route.cached], [1, jitter, false]);
      const error = await refusal(statistics.solve(2, key));
      assert.equal(error.message, "There are no statistics for layer 2");
    }
  }),
);

Deno.test("requireStatistics() names both sides when statistics do not fit", () => {
  const { origin } = smallStatistics(4);
  const model = { hash: "a".repeat(64), name: "m" };
  requireStatistics(origin, model, 1, 4, "f");
  const refuse = (...args: [typeof model, number, number]) => {
    try {
      requireStatistics(origin, ...args, "f");
    } catch (error) {
      return (error as Error).message;
    }
  };
  assert.equal(
    refuse({ ...model, hash: "b".repeat(64) }, 1, 4),
    `f does not fit: it was made from model ${"a".repeat(12)}, m is ${"b".repeat(12)}`,
  );
  assert.equal(refuse(model, 2, 4), "f does not fit: it is of layer 1, layer 2 is wanted");
  assert.equal(refuse(model, 1, 5), "f does not fit: its keys have 4 numbers, the layer's have 5");
});

Deno.test(
  "findStatistics() finds the file beside the embedded model",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS, NO_TOKENIZER);
    using statistics = await findStatistics(model, [1]);
    assert.equal(statistics.layers.get(1)?.corpusName, "atlas");
  }),
);

Deno.test(
  "findStatistics() takes the named file, then the cache's largest, and names the command when there is none",
  withGpu(async (gpu) => {
    await inCache(async (folder) => {
      using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
      const hash = await model.checkpoint.hash();
      const made = (tokens: number, change = {}) =>
        smallStatistics(model.dims.inner, { modelHash: hash, tokens, ...change });

      const pathOf = (corpus: string) =>
        cachedStatisticsPath(hash, 1, {
          corpusHash: corpus.repeat(64),
          maxLength: 512,
          tokens: 100,
          converged: 1,
        });

      const missing = await refusal(findStatistics(model, [1]));
      assert.equal(missing.message, `There are no statistics for layer 1 of ${model.name}`);
      assert.match(missing.hint!, /cli\.ts stats --model \S+gpt2-tiny --layers 1 --corpus /);

      await writeStatistics(pathOf("1"), made(10));
      await writeStatistics(pathOf("2"), made(30));
      await writeStatistics(pathOf("3"), made(20));
      await Deno.writeTextFile(`${pathOf("4")}.partial`, "half");
      using cached = await findStatistics(model, [1]);
      assert.equal(cached.layers.get(1)!.tokens, 30);

      const path = join(folder, "named.safetensors");
      await writeStatistics(path, made(5));
      using named = await findStatistics(model, [1], { files: [path] });
      assert.equal(named.layers.get(1)!.tokens, 5);

      // A named file that does not fit is refused, though the cache has one that does.
      await writeStatistics(path, made(5, { layer: 0 }));
      const other = await refusal(findStatistics(model, [1], { files: [path] }));
      assert.match(other.message, /named\.safetensors does not fit: it is of layer 0, layer 1 is wanted$/);
      await writeStatistics(path, made(5, { modelHash: "f".repeat(64) }));
      const foreign = await refusal(findStatistics(model, [1], { files: [path] }));
      assert.match(foreign.message, /does not fit: it was made from model ffffffffffff, /);
    });
  }),
);
