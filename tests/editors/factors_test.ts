import assert from "node:assert/strict";
import { join } from "node:path";
import { factorKey, factorPath, readFactor, writeFactor } from "../../editors/factor_cache.ts";
import type { Projector } from "../../editors/factors.ts";
import { type LayerStatistics, statisticsOf } from "../../editors/statistics.ts";
import { withGpu } from "../_gpu.ts";
import { DEVICES } from "../engine/linalg/_spd.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { normals } from "../engine/ops/_reference.ts";
import { inCache, smallStatistics } from "./_statistics.ts";

const WIDTH = 256;

async function entries(folder: string): Promise<string[]> {
  const names = await Array.fromAsync(Deno.readDir(join(folder, "emend/statistics/factors")), (e) => e.name);
  return names.sort();
}

Deno.test("readFactor() gives what writeFactor() kept, and nothing of a damaged or cut entry", async () => {
  await inCache(async (folder) => {
    const content = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
    const key = factorKey({ jitter: 1e-6 }, Float32Array.of(1, 2));
    assert.equal(await readFactor("cholesky", key), undefined);
    await writeFactor("cholesky", key, content);
    assert.deepEqual(await readFactor("cholesky", key), content);
    assert.equal(await readFactor("projector", key), undefined);
    assert.equal((await entries(folder)).length, 1);
    const path = factorPath("cholesky", key);
    const whole = await Deno.readFile(path);
    for (const damage of [0, 20, whole.length - 1]) {
      await Deno.writeFile(path, whole.with(damage, whole[damage] ^ 1));
      assert.equal(await readFactor("cholesky", key), undefined, `byte ${damage}`);
      assert.deepEqual(await entries(folder), [], "a damaged entry is removed");
    }
    for (const length of [0, 10, 47, 48, whole.length - 1]) {
      await Deno.writeFile(path, whole.subarray(0, length));
      assert.equal(await readFactor("cholesky", key), undefined, `${length} bytes`);
    }
  });
});

Deno.test("factorKey() differs when a fact or a number does", () => {
  const lower = Float32Array.of(1, 2, 3);
  const keys = [
    factorKey({ jitter: 1e-6 }, lower),
    factorKey({ jitter: 1e-5 }, lower),
    factorKey({ jitter: 1e-6 }, lower.with(2, 4)),
    factorKey({ jitter: 1e-6, route: "f64" }, lower),
  ];
  assert.equal(new Set(keys).size, keys.length);
  assert.equal(factorKey({ jitter: 1e-6 }, lower.slice()), keys[0]);
});

Deno.test(
  "solve() finds its factor on the disk the second time, on both routes, and makes a damaged one anew",
  async () => {
    const made = smallStatistics(WIDTH);
    const key = Float64Array.from(normals(2 * WIDTH, 3));
    // Opened before the cache moves: the driver keeps its shaders there, too.
    const devices = [[await DEVICES.native(), "f64"], [await DEVICES.single(), "compensated"]] as const;
    await inCache(async (folder) => {
      for (const [gpu, route] of devices) {
        const solve = async (statistics: LayerStatistics, jitter = 1e-6) => {
          using open = statisticsOf(gpu, [statistics], true);
          const x = await open.solve(1, key, 2, jitter);
          const [used] = open.routes();
          assert.equal(used.route, route);
          return { x, cached: used.cached };
        };
        const before = (await entries(folder).catch(() => [])).length;
        const first = await solve(made);
        const second = await solve(made);
        assert.deepEqual([first.cached, second.cached], [false, true]);
        // The same factor on the same device: the same bits.
        assert.deepEqual(second.x, first.x);
        assert.equal((await solve(made, 1e-5)).cached, false);
        const other = { ...made, lower: made.lower.with(0, made.lower[0] * 1.5) };
        assert.equal((await solve(other)).cached, false);
        assert.equal((await entries(folder)).length, before + 3);
        for (const name of await entries(folder)) {
          const path = join(folder, "emend/statistics/factors", name);
          const bytes = await Deno.readFile(path);
          await Deno.writeFile(path, bytes.with(bytes.length >> 1, bytes[bytes.length >> 1] ^ 4));
        }
        const anew = await solve(made);
        assert.equal(anew.cached, false);
        assert.deepEqual(anew.x, first.x);
      }
    });
  },
);

Deno.test(
  "statisticsOf() leaves the disk alone when it is not asked to cache, or the layer is narrow",
  withGpu(async (gpu) => {
    await inCache(async (folder) => {
      using quiet = statisticsOf(gpu, [smallStatistics(WIDTH)]);
      await quiet.solve(1, Float64Array.from(normals(WIDTH, 3)));
      using narrow = statisticsOf(gpu, [smallStatistics(40)], true);
      await narrow.solve(1, Float64Array.from(normals(40, 3)));
      assert.deepEqual(await Array.fromAsync(Deno.readDir(folder)), []);
    });
  }),
);

Deno.test(
  "solve() names the matrix, the column and the remedy when C is singular",
  async () => {
    // A file of zeros; and a key that never fires, without and with the jitter that repairs it.
    const zero = smallStatistics(WIDTH);
    zero.lower.fill(0);
    const dead = smallStatistics(WIDTH);
    for (let i = 0; i < WIDTH; i++) dead.lower[i >= 7 ? i * (i + 1) / 2 + 7 : 28 + i] = 0;
    const key = Float64Array.from(normals(WIDTH, 3));
    for (const device of ["native", "single"] as const) {
      const gpu = await DEVICES[device]();
      for (const [made, column, jitter] of [[zero, 0, 1e-6], [dead, 7, 0]] as const) {
        using statistics = statisticsOf(gpu, [made]);
        await assert.rejects(
          statistics.solve(1, key, 1, jitter),
          new RegExp(
            `^PivotError: Cannot factor C of layer 1 \\[256, 256\\]: column ${column} has the pivot 0.* ` +
              "jitter of .*\nUse a larger mom2_jitter, .*, or a statistic of more tokens$",
          ),
        );
      }
      using repaired = statisticsOf(gpu, [dead]);
      const x = await repaired.solve(1, key);
      assert.ok(x.every(Number.isFinite));
    }
  },
);

Deno.test(
  "projector() is made once by the given function, from C, and read from the disk afterwards",
  withGpu(async (gpu) => {
    const made = smallStatistics(WIDTH);
    await inCache(async () => {
      const asked: unknown[] = [];
      const project = async (threshold: number): Promise<Projector> => {
        using statistics = statisticsOf(gpu, [made], true);
        return await statistics.projector(1, threshold, async (_, C, options) => {
          asked.push(options);
          const { count, lower } = await C.read();
          assert.ok(relativeError(lower, made.lower) < 1e-7);
          assert.equal(count, 1);
          const { threshold } = options;
          return { n: WIDTH, threshold, rank: 3, near: [0.1, 0.2], lower: Float32Array.from(lower) };
        });
      };
      const first = await project(0.02);
      assert.deepEqual(await project(0.02), first);
      assert.deepEqual(first.near, [0.1, 0.2]);
      await project(0.03);
      const name = "C of layer 1";
      assert.deepEqual(asked, [{ name, threshold: 0.02 }, { name, threshold: 0.03 }]);
      using statistics = statisticsOf(gpu, [made]);
      await assert.rejects(
        statistics.projector(4, 0.02, () => Promise.reject()),
        /^InputError: There are no statistics for layer 4$/,
      );
    });
  }),
);
