/** The cache of optimised targets: what comes back is what was put in, and only for the same question. */
import assert from "node:assert/strict";
import { methodNamed } from "../../editors/methods.ts";
import { targetCache } from "../../editors/target_cache.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { load } from "../../mod.ts";

Deno.test("a cached target gives the same edit, bit for bit; other options are another target", async () => {
  const home = await Deno.makeTempDir();
  const before = Deno.env.get("XDG_CACHE_HOME");
  Deno.env.set("XDG_CACHE_HOME", home);
  try {
    using model = await load("atlas");
    const request = { prompt: "The capital of {} is", subject: "France", target: " Rome" };
    const weights = await fingerprint(model);
    const edit = async (name: string, settings: Record<string, unknown> = {}) => {
      const method = methodNamed(name);
      const { hparams } = method.parse({
        ...method.recipe(model).hparams,
        ...settings,
        v_num_grad_steps: 4,
        mom2_adjustment: false,
      }, "test");
      const targets = targetCache(model, weights);
      const made = await method.run(model, [request], { hparams, targets });
      return { made, taken: targets.taken() };
    };
    const first = await edit("r-rome");
    const again = await edit("r-rome");
    assert.deepEqual([first.taken, again.taken], [0, 1]);
    assert.deepEqual(again.made, first.made);
    assert.equal((await edit("rome")).taken, 1, "ROME optimises the same target");
    assert.equal((await edit("rome", { v_lr: 0.25 })).taken, 0, "another learning rate is another target");
    // A damaged file is as good as none.
    for await (const file of Deno.readDir(`${home}/emend/targets/${weights.slice(0, 16)}`)) {
      await Deno.truncate(`${home}/emend/targets/${weights.slice(0, 16)}/${file.name}`, 100);
    }
    const repaired = await edit("r-rome");
    assert.deepEqual([repaired.taken, repaired.made], [0, first.made]);
  } finally {
    if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
    else Deno.env.set("XDG_CACHE_HOME", before);
    await Deno.remove(home, { recursive: true });
  }
});
