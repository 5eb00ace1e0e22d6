/** Training as a user runs it: killed and resumed, then used by edit and eval; and what is refused. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { command, EDIT, emend, emendJson, refused } from "./_run.ts";
import { inFolder } from "./_eval.ts";

const TINY = { layers: "[5]", rank: 4, accumulate_bs: 2, val_interval: 4, val_steps: 2 };

const flags = (out: string, ...more: string[]) => [
  ...["train", "--model", "atlas", "--method", "mend", "--dataset", "atlas", "--out", out, "--steps", "12"],
  ...["--save-every", "2", ...Object.entries(TINY).flatMap(([key, value]) => ["--set", `${key}=${value}`])],
  ...more,
];

/** Starts a run and kills it, without mercy, as soon as there is a state to go on from. */
async function killedOnce(args: string[], file: string): Promise<void> {
  const child = command(args).spawn();
  const drained = [child.stdout, child.stderr].map((stream) => stream.cancel());
  for (let waited = 0; waited < 120_000; waited += 10) {
    if (await Deno.stat(file).then(() => true, () => false)) break;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  child.kill("SIGKILL");
  await Promise.all([child.status, ...drained]);
}

Deno.test(
  "a training that was killed goes on to the same bytes, and its editor edits",
  inFolder(async (folder) => {
    const [whole, broken] = ["whole", "broken"].map((name) => join(folder, name));
    const { stderr, stdout, code } = await emend(flags(whole));
    assert.equal(code, 0, stderr);
    assert.match(
      stderr,
      /^step 4 of 12 {2}loss: edit [\d.]+, locality [\d.]+ {2}validation: edit \d+ %, .* left$/m,
    );
    assert.match(stdout, /^12 steps \(last step\), .* of step (4|8|12) on 228 edits never trained on:$/m);
    for (const name of ["summary.json", "curves.svg"]) {
      assert.ok((await Deno.stat(join(whole, name))).size > 0);
    }

    await killedOnce(flags(broken), join(broken, "training.safetensors"));
    assert.ok(
      !await Deno.stat(join(broken, "summary.json")).catch(() => undefined),
      "It was not killed in time",
    );
    await refused(flags(broken), /already holds a training\nGo on with --resume/);
    await emendJson(flags(broken, "--resume"));
    for (const name of ["editor", "training"]) {
      const [a, b] = await Promise.all(
        [whole, broken].map((at) => Deno.readFile(join(at, `${name}.safetensors`))),
      );
      assert.ok(a.length === b.length && a.every((byte, i) => byte === b[i]), `${name} differs`);
    }

    const edit = [...EDIT, "--method", "mend", "--editor", whole];
    const { edits: [{ before, after }], hparams } = await emendJson(edit);
    assert.deepEqual(hparams, { layers: [], editor: whole });
    assert.notDeepEqual(after, before);
    await emendJson([
      ...["eval", "--model", "atlas", "--dataset", "atlas", "--method", "mend", "--editor", whole],
      ...["--limit", "2", "--metrics", "none", "--out", join(folder, "run")],
    ]);
    await refused(
      [...edit, "--set", "layers=[4]"],
      /edits layer.5.mlp.up, layer.5.mlp.down; .* ask for layer.4/,
    );
    await refused([...EDIT, "--method", "mend", "--editor", folder], /No such editor/);
    await refused([...EDIT, "--method", "rome", "--editor", whole], /rome has no hyper-parameter "editor"/);
  }),
);

Deno.test(
  "train refuses what it cannot train with",
  inFolder(async (folder) => {
    const file = join(folder, "train.json");
    const good = { src: "Who?", alt: "A", rephrase: "By whom?", loc: "where", loc_ans: "B" };
    await Deno.writeTextFile(
      file,
      [good, { ...good, loc: "" }, good].map((r) => JSON.stringify(r)).join("\n"),
    );
    const out = join(folder, "t");
    const own = ["train", "--model", "atlas", "--method", "mend", "--dataset", file, "--out", out];
    await refused(own, /train.json cannot be trained with. line 2: the record has an empty "loc"/);
    await refused(flags(folder), /holds something other than a training/);
    await refused(flags(out, "--set", "rnk=3"), /mend has no hyper-parameter "rnk" in training/);
    await refused(flags(out, "--method", "rome"), /There is no training for "rome"/);
  }),
);
