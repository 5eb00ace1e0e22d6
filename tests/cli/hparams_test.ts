/** Hyper-parameter files of other tools, as `--hparams` takes them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { inFolder } from "../engine/io/_data.ts";
import { EDIT, emend, emendJson, QUICK, refused } from "./_run.ts";

// EasyEdit, hparams/ROME/gpt2-xl.yaml, with the layer of a smaller model.
const EASYEDIT = `alg_name: "ROME"
model_name: "./hugging_cache/gpt2-xl"
stats_dir: "./data/stats"
device: 0
layers: [1]
fact_token: "subject_last"
v_num_grad_steps: 3
v_lr: 5e-1
v_loss_layer: 47
v_weight_decay: 0.5
clamp_norm_factor: 4
kl_factor: 0.0625
mom2_adjustment: false
context_template_length_params: [[3, 2]]
rewrite_module_tmp: "transformer.h.{}.mlp.c_proj"
layer_module_tmp: "transformer.h.{}"
mlp_module_tmp: "transformer.h.{}.mlp"
attn_module_tmp: "transformer.h.{}.attn"
ln_f_module: "transformer.ln_f"
lm_head_module: "transformer.wte"
mom2_dataset: "wikipedia"
mom2_n_samples: 100000
mom2_dtype: "float32"
model_parallel: false
`;

Deno.test("edit takes EasyEdit's YAML, and --set over it", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "gpt2-xl.yaml");
    await Deno.writeTextFile(path, EASYEDIT);
    const args = [...EDIT, "--method", "rome", "--hparams", path, "--set", "v_num_grad_steps=2", "--json"];
    const { code, stdout, stderr } = await emend(args);
    assert.equal(code, 0, stderr);
    assert.equal(stderr, "", "nothing to remark on");
    const { hparams, edits, method } = JSON.parse(stdout);
    assert.equal(method, "rome");
    assert.deepEqual([hparams.layers, hparams.v_num_grad_steps, hparams.v_lr], [[1], 2, 0.5]);
    assert.equal(hparams.mom2_adjustment, false);
    assert.equal(edits[0].steps, 2);
  });
});

Deno.test("edit fills a short YAML up from the recipe, and says when it is another method's", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "short.yml");
    await Deno.writeTextFile(path, "alg_name: ROME\nlayers: [1]\n");
    const { code, stdout, stderr } = await emend([...EDIT, "--hparams", path, "--dry-run", "--json"]);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^note: .*short\.yml is for ROME; its values are used for r-rome\n$/);
    const { hparams } = JSON.parse(stdout);
    assert.deepEqual([hparams.layers, hparams.clamp_norm_factor], [[1], 20]);
  });
});

Deno.test("edit takes ROME's JSON, and warns of a key that it does not know", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "gpt2-xl.json");
    // kmeng01/rome, hparams/ROME/gpt2-xl.json, with the layer of a smaller model.
    const file = {
      layers: [1],
      fact_token: "subject_last",
      v_num_grad_steps: 20,
      v_lr: 5e-1,
      v_loss_layer: 47,
      v_weight_decay: 0.5,
      clamp_norm_factor: 4,
      kl_factor: 0.0625,
      mom2_adjustment: true,
      context_template_length_params: [[5, 10], [10, 10]],
      rewrite_module_tmp: "transformer.h.{}.mlp.c_proj",
    };
    await Deno.writeTextFile(path, JSON.stringify(file));
    const { hparams } = await emendJson([...EDIT, "--hparams", path, "--dry-run"]);
    const { v_loss_layer: _, rewrite_module_tmp: __, ...known } = file;
    // What the file does not say is the recipe's.
    assert.deepEqual(hparams, { ...known, mom2_jitter: 1e-3 });

    await Deno.writeTextFile(path, JSON.stringify({ ...file, v_momentum: 1 }));
    const { code, stdout, stderr } = await emend([...EDIT, "--hparams", path, ...QUICK, "--json"]);
    assert.equal(code, 0);
    assert.match(stderr, /^note: .*gpt2-xl\.json has a key "v_momentum" that r-rome does not know\n$/);
    assert.equal(JSON.parse(stdout).edits[0].steps, 2);
  });
});

Deno.test("edit refuses a hyper-parameter file when it is none", async () => {
  await inFolder(async (folder) => {
    const yaml = join(folder, "h.yaml"), json = join(folder, "h.json");
    const refuse = async (path: string, text: string, message: RegExp) => {
      await Deno.writeTextFile(path, text);
      await refused([...EDIT, "--hparams", path], message);
    };
    await refuse(yaml, "layers: [1", /^error: Cannot read .*h\.yaml: .*line 1/);
    await refuse(yaml, "- a\n- b\n", /^error: .*h\.yaml does not hold hyper-parameters by name$/m);
    await refuse(yaml, "v_lr: fast\n", /^error: .*h\.yaml has a bad value for "v_lr": /);
    await refuse(yaml, "layers: [77]\n", /^error: There is no layer 77: atlas has layers 0 to 5$/m);
    await refuse(json, "{", /^error: Cannot read .*h\.json: /);
    await refused([...EDIT, "--hparams", join(folder, "none")], /none: there is no such file$/m);
  });
});
