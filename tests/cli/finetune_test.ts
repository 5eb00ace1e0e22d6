/** Fine-tuning as a user runs it: what a dry run says of memory. */
import assert from "node:assert/strict";
import { EDIT, emend, emendJson } from "./_run.ts";

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
