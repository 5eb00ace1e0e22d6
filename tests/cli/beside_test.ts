/** Edits that leave the weights alone, as a user makes, looks at, stacks and uses them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { inFolder } from "./_eval.ts";
import { emend, emendJson, refused } from "./_run.ts";

const FACTS = [
  ["{} met death in", "Giovanni Lanfranco", "Paris"],
  ["The first language of {} is", "Danielle Darrieux", "English"],
];

for (
  const [method, ...quick] of [
    ["grace", "--set", "n_iter=15"],
    ["melo"],
    ["wise", "--set", "n_iter=30", "--set", "context_template_length_params=[[3, 2]]"],
  ]
) {
  Deno.test(
    `${method}: edit, patch show, patch stack, generate; no checkpoint and no adapter of it`,
    inFolder(async (folder) => {
      const files = FACTS.map((_, i) => join(folder, `${i}.safetensors`));
      for (const [i, [prompt, subject, target]] of FACTS.entries()) {
        const fact = ["--prompt", prompt, "--subject", subject, "--target", target];
        const made = await emendJson(
          ["edit", "--model", "atlas", "--method", method, ...quick, ...fact, "--patch", files[i]],
        );
        assert.equal(made.edits[0].success, true);
      }
      const { patches: [shown] } = await emendJson(["patch", "show", files[0]]);
      assert.deepEqual(shown.tensors, []);
      assert.equal(shown.additions.length, 1);
      assert.match((await emend(["patch", "show", files[0]])).stdout, /beside\s+what\s+entries/);
      const stack = join(folder, "stack.safetensors");
      await emendJson(["patch", "stack", ...files, "--patch", stack]);
      const prompts = FACTS.flatMap(([prompt, subject]) => ["--prompt", prompt.replace("{}", subject)]);
      const { outputs } = await emendJson(
        ["generate", "--model", "atlas", "--patch", stack, ...prompts, "--max-tokens", "4"],
      );
      FACTS.forEach(([, , target], i) => assert.match(outputs[i].text, new RegExp(`^ ${target}`)));
      const out = join(folder, "out");
      await refused(
        ["patch", "apply", "--model", "atlas", "--patch", stack, "--out", out],
        /beside the weights/,
      );
    }),
  );
}
