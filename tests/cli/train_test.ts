/** Training as a user runs it: killed and resumed, then used by edit and eval; and what is refused. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { lockFolder } from "../../engine/io/lock.ts";
import { inFolder, killedWhen } from "./_eval.ts";
import { EDIT, emend, emendJson, exists, refused } from "./_run.ts";

const TINY = { layers: "[5]", rank: 4, accumulate_bs: 2, val_interval: 4, val_steps: 2 };

/** A MEND of next to nothing. */
const mendFlags = (out: string, ...more: string[]) => [
  ...["train", "--model", "atlas", "--method", "mend", "--dataset", "atlas", "--out", out, "--steps", "12"],
  ...["--save-every", "2", ...Object.entries(TINY).flatMap(([key, value]) => ["--set", `${key}=${value}`])],
  ...more,
];

/** atlas' records in CounterFact's layout. */
async function atlasRecords(): Promise<unknown[]> {
  return JSON.parse(await Deno.readTextFile(new URL("../../atlas/data/counterfact.json", import.meta.url)));
}

/** The bytes of a training's files are those of another's. */
async function sameBytes(a: string, b: string): Promise<void> {
  for (const name of ["editor", "training"]) {
    const [x, y] = await Promise.all([a, b].map((at) => Deno.readFile(join(at, `${name}.safetensors`))));
    assert.ok(x.length === y.length && x.every((byte, i) => byte === y[i]), `${name} differs`);
  }
}

/** Starts a training, kills it as soon as a file is there, and makes sure that it was not at its end. */
async function killedAt(args: readonly string[], folder: string, file: string): Promise<void> {
  await killedWhen(() => exists(join(folder, file)), args);
  assert.ok(!await exists(join(folder, "summary.json")), "It was not killed in time");
}

Deno.test(
  "a training that was killed goes on to the same bytes, and its editor edits",
  inFolder(async (folder) => {
    const [whole, broken] = ["whole", "broken"].map((name) => join(folder, name));
    const validation = join(folder, "validation.json");
    await Deno.writeTextFile(validation, JSON.stringify((await atlasRecords()).slice(0, 12)));
    const flags = (out: string, ...more: string[]) => mendFlags(out, "--validation", validation, ...more);
    const { stderr, stdout, code } = await emend(flags(whole));
    assert.equal(code, 0, stderr);
    assert.match(
      stderr,
      /^step 4 of 12 {2}loss: edit [\d.]+, locality [\d.]+ {2}validation: edit \d+ %, .* left$/m,
    );
    assert.match(stdout, /^12 steps \(last step\), .* of step (4|8|12) on 12 edits never trained on:$/m);
    for (const name of ["summary.json", "curves.svg"]) {
      assert.ok((await Deno.stat(join(whole, name))).size > 0);
    }

    await killedAt(flags(broken), broken, "training.safetensors");
    await refused(flags(broken), /already holds a training\nGo on with --resume/);
    {
      using _other = await lockFolder(broken, "config.json");
      await refused(flags(broken, "--resume"), /Another process is writing .*broken\n/);
    }
    await emendJson(flags(broken, "--resume"));
    await sameBytes(broken, whole);

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

/** A SERAC of next to nothing, on facts of atlas' own. */
async function seracFlags(folder: string, method: "serac" | "serac-easyedit") {
  const dataset = join(folder, "facts.json");
  await Deno.writeTextFile(dataset, JSON.stringify((await atlasRecords()).slice(100, 120)));
  const own = method === "serac"
    ? ["scope_width=4", "scope_steps=12", "scope_batch=8"]
    : ["width=4", "pairs=8"];
  const sizes = [...own, "layers=[0]", "rank=1", "batch=2", "val_interval=2"].flatMap((
    set,
  ) => ["--set", set]);
  return (out: string, ...more: string[]) => [
    ...["train", "--model", "atlas", "--method", method, "--dataset", dataset, "--out", out],
    ...[...sizes, "--steps", "4", "--save-every", "1", "--seed", "5", ...more],
  ];
}

Deno.test(
  "a training of serac that was killed in either part goes on to the same bytes, and its editor edits",
  inFolder(async (folder) => {
    const flags = await seracFlags(folder, "serac");
    const [whole, broken] = ["whole", "broken"].map((name) => join(folder, name));
    const { code, stderr } = await emend(flags(whole));
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^scope 1 of 12 {2}loss [\d.]+ {2}validation [\d.]+ {2}[\d.]+ s left$/m);
    assert.match(stderr, /^counterfactual 3 of 4 {2}loss [\d.]+ {2}[\d.]+ s left$/m);
    const picture = await Deno.readTextFile(join(whole, "curves.svg"));
    for (const part of ["scope classifier", "counterfactual model"]) assert.ok(picture.includes(part));
    // The first state is one of the scope classifier, the first editor has a counterfactual model.
    await killedAt(flags(broken), broken, "training.safetensors");
    await refused(flags(broken), /already holds a training\nGo on with --resume/);
    await refused(flags(broken, "--resume", "--set", "rank=2"), /another hparams.rank: 1 there, 2 now/);
    await killedAt(flags(broken, "--resume"), broken, "editor.safetensors");
    const { training } = await emendJson(flags(broken, "--resume"));
    await sameBytes(broken, whole);
    const { validations } = training.adapter;
    assert.deepEqual(validations.map(({ step }: { step: number }) => step), [2, 4]);
    for (const editor of [whole, join(whole, "editor.safetensors")]) {
      const { hparams } = await emendJson([...EDIT, "--method", "serac", "--editor", editor]);
      assert.equal(hparams.editor, editor);
    }
  }),
);

Deno.test(
  "a training of serac-easyedit that was killed goes on to the same bytes",
  inFolder(async (folder) => {
    const flags = await seracFlags(folder, "serac-easyedit");
    const [whole, broken] = ["whole", "broken"].map((name) => join(folder, name));
    await emendJson(flags(whole));
    await killedAt(flags(broken), broken, "training.safetensors");
    await emendJson(flags(broken, "--resume"));
    await sameBytes(broken, whole);
    await refused(
      flags(broken, "--set", "rnk=3"),
      /serac-easyedit in training has no hyper-parameter "rnk"\n.*rank/,
    );
    await refused(flags(broken, "--validation", "x.json"), /serac-easyedit takes no --validation/);
  }),
);

Deno.test(
  "a training of serac that diverges stops with step and cause",
  inFolder(async (folder) => {
    const flags = await seracFlags(folder, "serac");
    // A rate that no float32 survives: the first step's loss is finite, what it leads to is not.
    const { code, stderr } = await emend(flags(join(folder, "t"), "--set", "scope_lr=1e38"));
    assert.equal(code, 1, stderr);
    const [told, advice, ...more] = stderr.trimEnd().split("\n").slice(1);
    assert.match(told, /^error: Training of the scope classifier stopped at step \d: [a-z ]+ is not finite$/);
    assert.equal(advice, "Lower its learning rate");
    assert.deepEqual(more, []);
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
    const seracTrain = ["train", "--model", "atlas", "--method", "serac", "--out", out, "--dataset"];
    await refused(
      [...seracTrain, file],
      /lines 1, 3: the record has no "subject"; line 2: .* an empty "loc"/,
    );
    const three = join(folder, "three.json");
    await Deno.writeTextFile(three, JSON.stringify((await atlasRecords()).slice(0, 3)));
    await refused([...seracTrain, three], /facts about at least four subjects to train on, got 3\n/);
    const own = ["train", "--model", "atlas", "--method", "mend", "--dataset", file, "--out", out];
    await refused(own, /train.json cannot be trained with. line 2: the record has an empty "loc"/);
    await refused(mendFlags(folder), /holds something other than a training/);
    await refused(mendFlags(out, "--set", "rnk=3"), /mend has no hyper-parameter "rnk" in training/);
    await refused(mendFlags(out, "--method", "rome"), /There is no training for "rome"/);
    await refused(mendFlags(out, "--without", file), /--without is for files\nOf atlas' own facts/);
    await refused([...own, "--without", join(folder, "none.json")], /none\.json/);
  }),
);
