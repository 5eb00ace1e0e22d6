/** Commands about the machine and the program itself: doctor, demo, help. */
import assert from "node:assert/strict";
import { program } from "../../cli/main.ts";
import { emend, emendJson, refused } from "./_run.ts";

/** Every call of this file is a process of its own. */
const APART = {};

Deno.test("doctor tells what the machine can do, in the JSON that scripts read", async () => {
  const report = await emendJson(["doctor"], APART);
  const keys = ["ok", "adapter", "features", "limits", "numerics", "routes", "advice"];
  assert.deepEqual(Object.keys(report), keys);
  assert.equal(report.ok, true);
  assert.ok(report.adapter.length > 0);
  for (const key of ["features", "advice"]) {
    assert.ok(report[key].every((text: unknown) => typeof text === "string"), key);
  }
  assert.ok(report.limits.maxStorageBuffersPerShaderStage >= 8);
  assert.equal(typeof report.numerics.compensated, "boolean");
  assert.ok(["subgroup", "tiled"].includes(report.routes.matmul));
  assert.ok(["f64", "compensated", "host"].includes(report.routes.solver));
});

Deno.test("doctor says what to do and exits with 1 when there is no adapter", async () => {
  const nowhere = { VK_DRIVER_FILES: "/nowhere", VK_ICD_FILENAMES: "/nowhere" };
  const { code, stdout } = await emend(["doctor", "--json"], nowhere);
  const report = JSON.parse(stdout);
  // A machine whose GPU is not reached through Vulkan has an adapter all the same.
  if (report.ok) {
    return console.log("skipped: doctor without an adapter (this machine has one beside Vulkan)");
  }
  assert.equal(code, 1);
  assert.equal(report.adapter, null);
  assert.match(report.advice.join(" "), /mesa-vulkan-drivers/);
  const plain = await emend(["doctor"], nowhere);
  assert.deepEqual([plain.code, plain.stdout.split("\n")[0]], [1, "not ready"]);
  const generate = await emend(["generate", "--model", "atlas", "--prompt", "x"], nowhere);
  assert.equal(generate.code, 1);
  assert.match(generate.stderr, /^error: No GPU adapter was found.*\nInstall /);
});

Deno.test("demo shows a fact before and after, its neighbours, and that undoing is exact", async () => {
  const result = await emendJson(["demo", "--case", "0"], APART);
  const { request, questions, scores, undone } = result;
  assert.equal(undone, true);
  assert.equal(scores.before.ES, 0);
  assert.equal(scores.after.ES, 1);
  assert.ok(scores.after.NS >= 0.5);
  assert.equal(questions[0].kind, "the fact");
  assert.equal(questions[0].before.trim(), request.true.trim());
  assert.equal(questions[0].after.trim(), request.target.trim());
  assert.ok(questions.some((q: { kind: string }) => q.kind === "a neighbour"));
});

Deno.test("every command's help has an example, and its flags are explained", async () => {
  const { commands } = program();
  const names = [
    "demo",
    "doctor",
    "edit",
    "eval",
    "generate",
    "neurons",
    "patch",
    "recipe",
    "report",
    "stats",
    "test",
    "trace",
    "train",
  ];
  assert.deepEqual(commands.map((c) => c.name()).sort(), names);
  // patch is a group: tests/cli/patch_test.ts looks at its sub-commands.
  for (const command of commands.filter((c) => c.commands.length === 0)) {
    const { code, stdout, stderr } = await emend([command.name(), "--help"], APART);
    assert.equal(code, 0);
    assert.equal(stderr, "");
    assert.match(stdout, new RegExp(`^Examples?:\\n  deno run -A cli\\.ts ${command.name()}`, "m"));
    for (const option of command.options) {
      assert.ok(stdout.includes(option.long!), `${command.name()} ${option.long}`);
      assert.ok(option.description.length > 5, `${command.name()} ${option.long}`);
    }
    assert.ok(command.options.some((option) => option.long === "--json"), command.name());
  }
  const main = await emend(["--help"], APART);
  assert.equal(main.code, 0);
  for (const command of commands) assert.ok(main.stdout.includes(command.name()));
  assert.match((await emend(["--version"], APART)).stdout, /^\d+\.\d+\.\d+\n$/);
});

Deno.test("--debug shows where an error comes from, which is hidden otherwise", async () => {
  const args = ["generate", "--model", "no/model", "--prompt", "x"];
  await refused(args, /^error: No such model: no\/model\n/, APART);
  const { code, stderr } = await emend(["--debug", ...args], APART);
  assert.equal(code, 2);
  assert.match(stderr, /\n\s+at .*cli\/model\.ts/);
});
