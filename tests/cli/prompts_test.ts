/** Methods that put prompts in front, as a user runs them: edits and patches. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { inFolder } from "./_eval.ts";
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
