/** Fine-tuning as a user runs it: sequences that fold their ranks, and what a dry run says of memory. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { inFolder, killed, linesOf, untimed } from "./_eval.ts";
import { EDIT, emend, emendJson } from "./_run.ts";

Deno.test(
  "a sequence of LoRA edits folds its ranks, and ends the same when it was killed on the way",
  inFolder(async (folder) => {
    // Three edits of 128 ranks are more than c_attn [768, 256] can use: the second one folds.
    const flags = (out: string) => [
      ...["eval", "--model", "atlas", "--dataset", "atlas", "--method", "lora", "--limit", "3"],
      ...["--sequential", "--metrics", "none", "--out", join(folder, out)],
      ...["--set", "rank=128", "--set", "num_steps=2"],
    ];
    await emendJson(flags("whole"));
    await killed(flags("broken"), join(folder, "broken", "cases.jsonl"), 2);
    await emendJson([...flags("broken"), "--resume"]);
    for (const file of ["cases.jsonl", "retained.jsonl"]) {
      const [whole, broken] = [
        await linesOf(join(folder, "whole", file)),
        await linesOf(join(folder, "broken", file)),
      ];
      assert.equal(whole.length, 3);
      assert.equal(untimed(broken), untimed(whole), file);
    }
  }),
);

Deno.test("edit --dry-run of ft-full says what training takes and what there is", async () => {
  const dry = [...EDIT, "--method", "ft-full", "--dry-run"];
  const { memory, requests: [{ tokens }] } = await emendJson(dry);
  // Value, gradient and two moments in f32 of every number; the edit is one of each.
  assert.equal(memory.gpu_training_bytes, 4 * memory.host_edit_bytes);
  assert.ok(memory.gpu_training_bytes > 16 * 5e6 && memory.gpu_training_bytes < 16 * 6e6);
  const last = tokens.find(({ subject_last }: { subject_last: boolean }) => subject_last);
  assert.equal(last.token, "franco");
  const { stdout } = await emend(dry);
  assert.match(stdout, /^memory: weights \d+ MiB, work about \d+ MiB, training \d+ MiB, the edit \d+ MiB/m);
  const one = await emendJson([...dry, "--set", "layers=[1]"]);
  assert.ok(one.memory.gpu_training_bytes < memory.gpu_training_bytes / 5);
});
