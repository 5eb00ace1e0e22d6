import assert from "node:assert/strict";
import { join } from "node:path";
import { loadRuns } from "../../../evaluation/report/load.ts";
import { summarise } from "../../../evaluation/summarise.ts";
import { configOf, lineOf, retainedOf, withFolder, writeRun } from "./_runs.ts";

const all = [3, 1, 2, 0];

Deno.test("loadRuns() merges shards into what one whole run says, byte for byte", () =>
  withFolder(async (folder) => {
    const line = (index: number) => lineOf(index, { ES: index / 7, PS: index / 11, NS: 1 / (index + 3) });
    await writeRun(join(folder, "whole"), configOf(), all.map(line));
    await writeRun(join(folder, "s/shard-2-of-2"), configOf({ shard: { index: 2, of: 2 } }), [
      line(1),
      line(0),
    ]);
    await writeRun(join(folder, "s/shard-1-of-2"), configOf({ shard: { index: 1, of: 2 } }), [
      line(3),
      line(2),
    ]);
    const [whole, merged] = await loadRuns([join(folder, "whole"), join(folder, "s")]);
    assert.equal(JSON.stringify(merged.summary), JSON.stringify(whole.summary));
    assert.deepEqual(merged.lines.map(({ index }) => index), all);
    assert.deepEqual(merged.paths.map((path) => path.slice(-6)), ["1-of-2", "2-of-2"]);
    const expected = summarise(configOf(), all.map(line), undefined, { total_s: 12 });
    assert.equal(
      JSON.stringify(whole.summary),
      JSON.stringify(expected),
      "3 s a case, as there is no summary",
    );
  }));

Deno.test("loadRuns() names all adapters of shards, and adds their times", () =>
  withFolder(async (folder) => {
    for (const [i, adapter] of ["H100", "A100"].entries()) {
      const config = configOf({ indices: [0, 1], adapter, shard: { index: i + 1, of: 2 } });
      await writeRun(join(folder, adapter), config, [lineOf(i)]);
      await Deno.writeTextFile(
        join(folder, adapter, "summary.json"),
        JSON.stringify({ time_s: { total: 10 } }),
      );
    }
    const [run] = await loadRuns([join(folder, "H100"), join(folder, "A100")]);
    assert.deepEqual([run.config.adapter, run.config.shard, run.summary.time_s.total], [
      "A100 + H100",
      undefined,
      20,
    ]);
  }));

/** Expects one sentence. */
async function refusedRuns(paths: string[], message: RegExp): Promise<void> {
  await assert.rejects(loadRuns(paths), (error: Error) => {
    assert.equal(error.name, "InputError", error.stack);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n|\.$|undefined/);
    return true;
  });
}

Deno.test("loadRuns() refuses shards that do not belong together, naming what differs", () =>
  withFolder(async (folder) => {
    const shard = (index: number, of = 2) => ({ shard: { index, of } });
    const at = (name: string) => join(folder, name);
    await writeRun(at("a"), configOf(shard(1)), [lineOf(3), lineOf(2)]);
    await writeRun(at("seed"), configOf({ ...shard(2), seed: 1 }), [lineOf(1), lineOf(0)]);
    await writeRun(at("lr"), configOf({ ...shard(2), hparams: { layers: [5], v_lr: 0.1 } }), [
      lineOf(1),
      lineOf(0),
    ]);
    await writeRun(at("overlap"), configOf(shard(2)), [lineOf(2), lineOf(0)]);
    await writeRun(at("twin"), configOf(shard(1)), [lineOf(1), lineOf(0)]);
    await writeRun(at("short"), configOf(shard(2)), [lineOf(1)]);
    await refusedRuns(
      [at("a"), at("seed")],
      /a and .*seed are not shards of one run: seed is 0 in the one and 1 in/,
    );
    await refusedRuns([at("a"), at("lr")], /hparams\.v_lr is 0\.5 in the one and 0\.1 in the other$/);
    await refusedRuns(
      [at("a"), at("overlap")],
      /^Shards overlap: case case-2 at position 2 is in .*a and in .*overlap$/,
    );
    await refusedRuns([at("a"), at("twin")], /a and .*twin are both shard 1 of 2$/);
    await refusedRuns([at("a")], /is incomplete: shard 2 of 2 is missing$/);
    await refusedRuns([at("a"), at("short")], /is incomplete: 1 of its 4 cases are missing$/);
    await refusedRuns([at("a"), join(folder, "seed/../a")], /a is given twice$/);
    const [partial] = await loadRuns([at("a"), at("short")], { partial: true });
    assert.deepEqual([partial.missing, partial.summary.cases], [1, 3]);
  }));

Deno.test("loadRuns() refuses a sequence that was not read to its end, and shards of sequences", () =>
  withFolder(async (folder) => {
    const config = configOf({ protocol: "sequential", indices: [0, 1] });
    const lines = [lineOf(0), lineOf(1)];
    await writeRun(join(folder, "cut"), config, lines, [retainedOf(0, { ES: 1 })]);
    await refusedRuns([join(folder, "cut")], /is incomplete: 1 of its 2 cases are missing$/);
    await writeRun(join(folder, "shard"), { ...config, shard: { index: 1, of: 2 } }, lines);
    await refusedRuns([join(folder, "shard")], /is a shard of a sequential run, which cannot be split$/);
  }));

Deno.test("loadRuns() lets a torn last line go, and no other", () =>
  withFolder(async (folder) => {
    const text = all.map((index) => JSON.stringify(lineOf(index)) + "\n").join("");
    const config = configOf();
    const path = await writeRun(join(folder, "run"), config, text + '{"id": "ca');
    assert.equal((await loadRuns([path]))[0].lines.length, 4);
    await writeRun(path, config, text.slice(0, -1));
    assert.equal((await loadRuns([path]))[0].lines.length, 4, "only the line break is missing");
    await writeRun(path, config, text.slice(0, -100));
    assert.equal((await loadRuns([path], { partial: true }))[0].lines.length, 3);
    await writeRun(path, config, text.replace("\n", "\n{oops\n"));
    await refusedRuns([path], /cases\.jsonl line 2 is not JSON: /);
  }));

Deno.test("loadRuns() says where a folder is wrong", () =>
  withFolder(async (folder) => {
    const path = join(folder, "run");
    await refusedRuns([path], /there is no such folder$/);
    await Deno.mkdir(path);
    await refusedRuns([path], /run is no run: it has no config\.json$/);
    await Deno.writeTextFile(join(folder, "file"), "x");
    await refusedRuns([join(folder, "file")], /it is no folder$/);
    await writeRun(path, "[]", []);
    await refusedRuns([path], /config\.json is not a run's configuration: /);
    await writeRun(path, "{", []);
    await refusedRuns([path], /config\.json is not JSON: /);
    await writeRun(path, JSON.stringify({ ...configOf(), protocol: "many" }), []);
    await refusedRuns([path], /config\.json is not a run's configuration: protocol: /);
    await writeRun(path, configOf({ indices: [1, 1] }), []);
    await refusedRuns([path], /indices: names a case twice$/);
    await writeRun(path, configOf({ indices: [1] }), [lineOf(2)]);
    await refusedRuns([path], /case case-2 at position 2, which its config\.json does not name$/);
    await writeRun(path, configOf({ indices: [1] }), [lineOf(1), lineOf(1)]);
    await refusedRuns([path], /cases\.jsonl has case case-1 at position 1 twice$/);
    const bad = { ...lineOf(1), metrics: { before: {}, after: { ES: "high" } } };
    await writeRun(path, configOf({ indices: [1] }), JSON.stringify(bad) + "\n");
    await refusedRuns([path], /cases\.jsonl line 1 is not a case of a run: metrics\.after\.ES: /);
    const lying = lineOf(1);
    lying.after.probes[0].answer!.argmax.pop();
    await writeRun(path, configOf({ indices: [1] }), [lying]);
    await refusedRuns([path], /after\.probes\.0\.answer: has lists of different lengths$/);
    await Deno.writeFile(
      join(path, "cases.jsonl"),
      crypto.getRandomValues(new Uint8Array(500)).fill(10, 300, 301),
    );
    await refusedRuns([path], /cases\.jsonl line \d+ is not /);
  }));
