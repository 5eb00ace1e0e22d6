import assert from "node:assert/strict";
import { join } from "node:path";
import { readPatch } from "../../patches/patch.ts";
import { inFolder } from "../engine/io/_data.ts";
import { BRIEF, EDIT, emend, emendJson, exists, QUICK } from "./_run.ts";

const FACT = [...EDIT, "--true", "Rome"];

/** Keys of an object that a contract promises; more may be there. */
function assertKeys(value: object, keys: string[], where: string): void {
  for (const key of keys) assert.ok(key in value, `${where} has no ${key}`);
}

/** Numbers, all finite and not negative. */
function assertNumbers(value: Record<string, number>, keys: string[]): void {
  assert.deepEqual(Object.keys(value).sort(), keys.toSorted());
  for (const key of keys) assert.ok(Number.isFinite(value[key]) && value[key] >= 0, `${key}: ${value[key]}`);
}

// deno-lint-ignore no-explicit-any -- one state of the JSON contract
function assertState(state: any, where: string): void {
  assert.deepEqual(Object.keys(state), ["top", "p_target", "p_true", "generation"], where);
  assert.equal(state.top.length, 5);
  for (const [i, entry] of state.top.entries()) {
    assert.deepEqual(Object.keys(entry), ["token", "p"]);
    assert.ok(typeof entry.token === "string" && entry.p > 0 && entry.p <= 1);
    assert.ok(i === 0 || entry.p <= state.top[i - 1].p, "likeliest first");
  }
}

Deno.test("edit changes a fact, proves it, and writes patch, checkpoint and adapter that hold the edit", async () => {
  await inFolder(async (folder) => {
    const [patch, out, peft] = ["new/p.safetensors", "model", "adapter"].map((name) => join(folder, name));
    const question = "Giovanni Lanfranco met death in";
    const result = await emendJson([
      ...FACT,
      ...BRIEF,
      "--generate",
      question,
      "--patch",
      patch,
      "--out",
      out,
      "--peft",
      peft,
    ]);

    // product.md, "edit --json prints one object".
    assertKeys(
      result,
      ["model", "method", "adapter", "hparams", "edits", "time_s", "memory", "weights_changed", "written"],
      "the result",
    );
    assert.deepEqual([result.model, result.method], ["atlas", "r-rome"]);
    assert.equal(result.hparams.layers[0], 1, "atlas' recipe");
    assert.equal(result.edits.length, 1);
    const [edit] = result.edits;
    assertKeys(
      edit,
      ["prompt", "subject", "target", "true", "before", "after", "success", "steps"],
      "the edit",
    );
    assert.deepEqual([edit.prompt, edit.subject, edit.target.trim()], [
      "{} met death in",
      "Giovanni Lanfranco",
      "Paris",
    ]);
    assertState(edit.before, "before");
    assertState(edit.after, "after");
    assert.equal(edit.success, true);
    assert.ok(edit.before.p_true > 0.5 && edit.before.p_target < 0.5);
    assert.ok(edit.after.p_target > 0.5 && edit.after.p_true < 0.5);
    assert.equal(edit.after.top[0].token, " Paris");
    assert.ok(edit.steps > 1 && edit.steps <= result.hparams.v_num_grad_steps);
    assert.ok(Number.isFinite(edit.loss));
    assertNumbers(result.time_s, ["load", "prepare", "edit", "evaluate"]);
    assertNumbers(result.memory, ["gpu_peak_bytes", "gpu_weights_bytes"]);
    assert.ok(result.memory.gpu_peak_bytes > result.memory.gpu_weights_bytes);
    const [changed] = result.weights_changed;
    assert.equal(result.weights_changed.length, 1);
    assert.deepEqual([changed.tensor, changed.shape, changed.rank], [
      "transformer.h.1.mlp.c_proj.weight",
      [1024, 256],
      1,
    ]);
    assert.ok(changed.frobenius > 0 && changed.relative > 0);
    assert.deepEqual(result.written, [patch, peft, out]);
    assert.match(result.generations[0].after, /^ Paris/);

    // The files say the same as the process that wrote them.
    assert.deepEqual((await readPatch(patch)).requests[0].target, " Paris");
    assert.ok(await exists(join(peft, "adapter_model.safetensors")));
    const flags = ["--prompt", question, "--max-tokens", "16"];
    const patched = await emendJson(["generate", "--model", "atlas", "--patch", patch, ...flags]);
    assert.equal(patched.outputs[0].text, edit.after.generation);
    const saved = await emendJson(["generate", "--model", out, ...flags]);
    assert.match(saved.outputs[0].text, /^ Paris/);
    const plain = await emendJson(["generate", "--model", "atlas", ...flags]);
    assert.equal(plain.outputs[0].text, edit.before.generation);

    // The edited model is another base: its statistics and patches are its own.
    const again = await emend(["generate", "--model", out, "--patch", patch, ...flags]);
    assert.equal(again.code, 2);
    assert.match(again.stderr, /was made for model/);
  });
});

Deno.test("edit reports to people, and a second run replaces what the first one wrote", async () => {
  await inFolder(async (folder) => {
    const patch = join(folder, "p.safetensors"), out = join(folder, "model");
    const args = [...EDIT, ...QUICK, "--method", "ROME", "--patch", patch, "--out", out];
    const first = await emend(args);
    assert.equal(first.code, 0, first.stderr);
    assert.match(first.stdout, /^rome on atlas \(.+\)\. Recipe for atlas/);
    assert.match(first.stdout, /Giovanni Lanfranco met death in …/);
    assert.match(first.stdout, /^The edit (took|did NOT take): 2 steps, loss \d/m);
    assert.match(first.stdout, /^changed transformer\.h\.1\.mlp\.c_proj\.weight \[1024, 256\] by rank 1, /m);
    assert.match(first.stdout, /^time: load .*device memory at most \d+ MiB/m);
    assert.ok(first.stdout.includes(`written: ${patch}, ${out}`));
    const second = await emend(args);
    assert.equal(second.code, 0, second.stderr);
    const names = (await Array.fromAsync(Deno.readDir(folder))).map((e) => e.name);
    assert.deepEqual(names.sort(), ["model", "p.safetensors"], "nothing half-written is left");
  });
});

Deno.test("edit takes several requests from a file, and a patch may go into the model's folder", async () => {
  await inFolder(async (folder) => {
    const requests = join(folder, "r.jsonl"), out = join(folder, "model");
    const record = {
      prompt: "The mother tongue of {} is",
      subject: "Danielle Darrieux",
      target_new: { str: "English" },
      target_true: { str: "French" },
    };
    const plain = { prompt: "Toko Yasuda plays the", subject: "Toko Yasuda", target: "piano" };
    await Deno.writeTextFile(
      requests,
      `${JSON.stringify({ requested_rewrite: record })}\n\n${JSON.stringify(plain)}\n`,
    );
    const patch = join(out, "patch.safetensors");
    const result = await emendJson(
      ["edit", "--model", "atlas", "--requests", requests, ...QUICK, "--out", out, "--patch", patch],
    );
    // deno-lint-ignore no-explicit-any -- parsed JSON
    assert.deepEqual(result.edits.map((e: any) => [e.prompt, e.target, e.true]), [
      ["The mother tongue of {} is", " English", " French"],
      ["{} plays the", " piano", undefined],
    ]);
    assert.ok(!("p_true" in result.edits[1].after));
    assert.equal(result.weights_changed[0].rank, 2);
    assert.deepEqual((await readPatch(patch)).deltas[0].kind, "low-rank");
    assert.ok(await exists(join(out, "config.json")));
  });
});

Deno.test("edit --dry-run tells memory, time, layers, statistics and tokens, and writes nothing", async () => {
  await inFolder(async (folder) => {
    const files = ["--patch", join(folder, "p"), "--out", join(folder, "o"), "--peft", join(folder, "a")];
    const plan = await emendJson([...FACT, ...files, "--dry-run"]);
    assert.deepEqual(await Array.fromAsync(Deno.readDir(folder)), []);
    assert.equal(plan.dry_run, true);
    assert.deepEqual(plan.layers, [1]);
    assert.match(plan.statistics[0].state, /^\d+ tokens of atlas$/);
    assertNumbers(plan.memory, [
      "available_bytes",
      "gpu_weights_bytes",
      "gpu_work_bytes",
      "gpu_solver_bytes",
    ]);
    assert.ok(plan.memory.gpu_weights_bytes > 11e6 && plan.memory.gpu_work_bytes > 1e6);
    assert.ok(plan.time_s > 0.01 && plan.time_s < 600);
    const [{ text, tokens, target_tokens, rows }] = plan.requests;
    assert.equal(text, "Giovanni Lanfranco met death in");
    // deno-lint-ignore no-explicit-any -- parsed JSON
    assert.equal(tokens.map((t: any) => t.token).join(""), text);
    // deno-lint-ignore no-explicit-any -- parsed JSON
    const last = tokens.filter((t: any) => t.subject_last);
    assert.equal(last.length, 1);
    assert.match("Giovanni Lanfranco", new RegExp(`${last[0].token}$`));
    assert.deepEqual(target_tokens.length, 1);
    assertNumbers(rows, ["prepare", "step", "loss"]);

    const { code, stdout } = await emend([...FACT, ...files, "--dry-run"]);
    assert.equal(code, 0);
    assert.match(stdout, /^Dry run of r-rome: nothing is changed\. Recipe for atlas/);
    assert.match(stdout, /← subject's last/);
    assert.match(
      stdout,
      /^memory: weights 11 MiB, work about \d+ MiB, solver about \d+ MiB, of \d+ MiB free; time: up to/m,
    );
    assert.deepEqual(await Array.fromAsync(Deno.readDir(folder)), []);
  });
});
