import assert from "node:assert/strict";
import { join } from "node:path";
import { readPatch } from "../../patches/patch.ts";
import { inFolder } from "../engine/io/_data.ts";
import { BRIEF, EDIT, emend, emendJson, exists, QUICK, refused } from "./_run.ts";

const FACT = [...EDIT, ...BRIEF, "--true", "Rome"];

Deno.test("edit's firewall keeps, takes back or refuses an edit, and says which budget bound", async () => {
  await inFolder(async (folder) => {
    const pack = join(folder, "facts.jsonl");
    await Deno.writeTextFile(
      pack,
      '{"expect": "change", "prompt": "a", "answer": "b"}\n' +
        '{"expect": "keep", "prompt": "The capital of France is", "answer": "Paris"}\n',
    );
    const wide = await emendJson([
      ...FACT,
      "--max-drift",
      "5",
      "--keep",
      "The capital of Italy is",
      "--keep-pack",
      pack,
    ]);
    assert.deepEqual([wide.firewall.scale, wide.firewall.broken, wide.firewall.refused], [1, [], undefined]);
    assert.deepEqual(wide.firewall.checks.map((check: { name: string }) => check.name), [
      "max-drift",
      "keep",
      "keep",
    ]);
    const drift = wide.firewall.checks[0].full;
    assert.ok(drift > 0 && drift < 5);

    const patch = join(folder, "p.safetensors");
    const back = await emendJson([...FACT, "--max-drift", String(0.85 * drift), "--patch", patch]);
    const { scale, checks: [check], broken } = back.firewall;
    assert.ok(scale > 0.5 && scale < 1, `${scale}`);
    assert.deepEqual([check.bound, check.ok, check.full], [true, true, drift]);
    assert.ok(check.value <= check.limit);
    assert.equal(broken.length, 1);
    assert.equal(back.edits[0].success, true);
    const ratio = back.weights_changed[0].frobenius / wide.weights_changed[0].frobenius;
    assert.ok(Math.abs(ratio / scale - 1) < 1e-4, "what is measured and written is the scaled edit");
    assert.equal((await readPatch(patch)).hparams.firewall_scale, scale);

    const none = join(folder, "none.safetensors");
    const run = await emend([
      ...FACT,
      "--max-drift",
      "1e-6",
      "--max-norm-growth",
      "1e-3",
      "--patch",
      none,
      "--json",
    ]);
    assert.equal(run.code, 1);
    assert.equal(await exists(none), false);
    const errors = run.stderr.trimEnd().split("\n").filter((line) => line.startsWith("error: "));
    assert.equal(errors.length, 3, run.stderr);
    assert.match(errors[0], /drifts by .* nats on neutral prompts; the budget is 0\.000001$/);
    assert.match(errors[1], /norm grow by .*; the budget is 0\.001$/);
    const no = JSON.parse(run.stdout);
    assert.equal(no.firewall.scale, 0);
    assert.equal(errors[2], `error: ${no.firewall.refused}`);
    assert.deepEqual([no.written, no.weights_changed, no.edits[0].success], [[], [], false]);
    assert.deepEqual(no.edits[0].after, no.edits[0].before);
  });
});

Deno.test("edit's report shows the firewall's table; without budgets there is none", async () => {
  const { code, stdout } = await emend([...FACT, "--max-norm-growth", "0.001"]);
  assert.equal(code, 1);
  assert.match(stdout, /^firewall +budget +in full$/m);
  assert.match(stdout, /^max-norm-growth +0\.001 +[\d.]+ +BROKEN$/m);
  assert.match(stdout, /^The firewall refused the edit: /m);
  assert.match(stdout, /^The edit was refused: \d+ steps/m);
  assert.equal("firewall" in await emendJson([...EDIT, ...QUICK]), false);
});

Deno.test("edit refuses budgets that are none", async () => {
  await inFolder(async (folder) => {
    await refused([...EDIT, "--max-drift", "-1"], /--max-drift wants a number from 0/);
    await refused([...EDIT, "--max-norm-growth", "much"], /--max-norm-growth wants a number/);
    await refused([...EDIT, "--keep", " "], /--keep wants a prompt/);
    const pack = join(folder, "facts.jsonl");
    await Deno.writeTextFile(pack, '{"expect": "change", "prompt": "a", "answer": "b"}');
    await refused([...EDIT, "--keep-pack", pack], /has nothing to keep: none of its 1 probes/);
    await Deno.writeTextFile(
      pack,
      '{"expect": "keep", "prompt": "The capital of France is", "answer": "Rome"}',
    );
    await refused(
      [...EDIT, "--keep-pack", pack],
      /does not hold before the edit: expected "Rome", the model says "Paris"/,
    );
  });
});
