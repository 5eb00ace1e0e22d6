/** Methods that put prompts in front, as a user runs them: edits, patches, and sequences that were killed. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { inFolder, killed, summaryOf, untimed } from "./_eval.ts";
import { emendJson, refused } from "./_run.ts";

const LANFRANCO = [
  ...[
    "--prompt",
    "{} met death in",
    "--subject",
    "Giovanni Lanfranco",
    "--target",
    "Paris",
    "--true",
    "Rome",
  ],
];

Deno.test(
  "edit --method serac writes a patch that generate reads; what writes weights refuses it",
  inFolder(async (folder) => {
    const patch = join(folder, "paris.safetensors");
    const made = await emendJson([
      ...["edit", "--model", "atlas", "--method", "serac", ...LANFRANCO, "--patch", patch],
    ]);
    assert.equal(made.edits[0].success, true);
    assert.equal(made.edits[0].loss, null);
    assert.deepEqual(made.weights_changed, []);
    const { outputs } = await emendJson([
      ...["generate", "--model", "atlas", "--patch", patch, "--max-tokens", "1"],
      ...["--prompt", "The death of Giovanni Lanfranco took place in"],
      ...["--prompt", "Paulus Manutius has a death record from"],
    ]);
    assert.deepEqual(outputs.map(({ text }: { text: string }) => text), [" Paris", " Rome"]);
    const shown = await emendJson(["patch", "show", patch]);
    assert.equal(shown.patches[0].prompts.facts.length, 1);
    await refused(
      ["patch", "apply", "--model", "atlas", "--patch", patch, "--out", join(folder, "edited")],
      /An edit by serac changes no weight: it cannot become a checkpoint/,
    );
  }),
);

Deno.test(
  "a sequence of edits by serac that was killed ends as one that was not",
  inFolder(async (folder) => {
    const args = (out: string) => [
      ...["eval", "--model", "atlas", "--dataset", "atlas", "--method", "serac", "--limit", "4"],
      ...["--sequential", "--metrics", "none", "--out", join(folder, out)],
    ];
    await emendJson(args("whole"));
    await killed([...args("broken"), "--resume"], join(folder, "broken", "cases.jsonl"), 2);
    await emendJson([...args("broken"), "--resume"]);
    assert.equal(
      untimed(await summaryOf(join(folder, "broken"))),
      untimed(await summaryOf(join(folder, "whole"))),
    );
  }),
);

Deno.test(
  "train --method serac writes an editor that edit takes; what it does not know is refused before it begins",
  inFolder(async (folder) => {
    const records = JSON.parse(
      await Deno.readTextFile(new URL("../../atlas/data/counterfact.json", import.meta.url)),
    );
    const dataset = join(folder, "facts.json"), out = join(folder, "serac");
    await Deno.writeTextFile(dataset, JSON.stringify(records.slice(100, 120)));
    const args = ["train", "--model", "atlas", "--method", "serac", "--dataset", dataset, "--out", out];
    await refused([...args, "--resume"], /training of serac cannot be resumed/);
    await refused([...args, "--set", "rnk=3"], /no hyper-parameter "rnk"\n.*rank/);
    const sizes = ["scope_width=4", "scope_steps=12", "scope_batch=8", "rank=1", "batch=2", "val_interval=2"];
    const made = await emendJson([...args, ...sizes.flatMap((set) => ["--set", set]), "--steps", "4"]);
    assert.deepEqual(
      made.training.adapter.validations.map(({ step }: { step: number }) => step),
      [2, 4],
    );
    const edited = await emendJson([
      ...[
        "edit",
        "--model",
        "atlas",
        "--method",
        "serac",
        "--set",
        `editor=${made.written[0]}`,
        ...LANFRANCO,
      ],
    ]);
    assert.equal(edited.hparams.editor, made.written[0]);
  }),
);
