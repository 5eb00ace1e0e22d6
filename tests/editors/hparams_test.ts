import assert from "node:assert/strict";
import { InputError } from "../../engine/io/errors.ts";
import { type Hparams, nearest, parseHparams, romeSchema } from "../../editors/hparams.ts";
import { methodNamed, METHODS } from "../../editors/methods.ts";

const DEFAULTS = {
  fact_token: "subject_last",
  v_num_grad_steps: 20,
  v_lr: 0.5,
  v_weight_decay: 0.5,
  clamp_norm_factor: 4,
  kl_factor: 0.0625,
  mom2_adjustment: true,
  mom2_jitter: 1e-6,
  context_template_length_params: [[5, 10], [10, 10]],
};

Deno.test("parseHparams() fills in the reference's defaults when keys are absent", () => {
  const { hparams, unknown } = parseHparams(romeSchema, { layers: [5] }, "It");
  assert.deepEqual(hparams, { layers: [5], ...DEFAULTS });
  assert.deepEqual(unknown, []);
});

Deno.test("parseHparams() lists keys that nobody knows when a file has them, and no others", () => {
  // kmeng01/rome, hparams/ROME/gpt2-xl.json: every key that it has.
  const file = {
    layers: [17],
    ...DEFAULTS,
    v_loss_layer: 47,
    rewrite_module_tmp: "transformer.h.{}.mlp.c_proj",
    layer_module_tmp: "transformer.h.{}",
    mlp_module_tmp: "transformer.h.{}.mlp",
    attn_module_tmp: "transformer.h.{}.attn",
    ln_f_module: "transformer.ln_f",
    lm_head_module: "transformer.wte",
    mom2_dataset: "wikipedia",
    mom2_n_samples: 100000,
    mom2_dtype: "float32",
  };
  assert.deepEqual(parseHparams(romeSchema, file, "It"), {
    hparams: { layers: [17], ...DEFAULTS },
    unknown: [],
  });
  assert.deepEqual(parseHparams(romeSchema, { ...file, v_rl: 1 }, "It").unknown, ["v_rl"]);
});

Deno.test("parseHparams() names file and key when a value is bad", () => {
  const cases: [Record<string, unknown>, string][] = [
    [{}, "layers"],
    [{ layers: 5 }, "layers"],
    [{ layers: [] }, "layers"],
    [{ layers: [1, 2] }, "layers"],
    [{ layers: [-1] }, "layers.0"],
    [{ layers: [1.5] }, "layers.0"],
    [{ v_lr: 0 }, "v_lr"],
    [{ v_lr: "fast" }, "v_lr"],
    [{ v_lr: NaN }, "v_lr"],
    [{ v_num_grad_steps: 0 }, "v_num_grad_steps"],
    [{ clamp_norm_factor: -1 }, "clamp_norm_factor"],
    [{ kl_factor: -1 }, "kl_factor"],
    [{ fact_token: "last" }, "fact_token"],
    [{ mom2_adjustment: "yes" }, "mom2_adjustment"],
    [{ context_template_length_params: [[0, 1]] }, "context_template_length_params.0.0"],
  ];
  for (const [change, key] of cases) {
    const values = "layers" in change || key === "layers" ? change : { layers: [1], ...change };
    assert.throws(() => parseHparams(romeSchema, values, "file.json"), (error) => {
      assert.ok(error instanceof InputError);
      assert.ok(error.message.startsWith(`file.json has a bad value for "${key}": `), error.message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  }
});

Deno.test("nearest() gives the intended name when one is near, and none when none is", () => {
  const keys = Object.keys(romeSchema.shape);
  for (
    const [typed, meant] of [
      ["v_rl", "v_lr"],
      ["layer", "layers"],
      ["V_LR", "v_lr"],
      ["kl_fact", "kl_factor"],
      ["mom2_adjustement", "mom2_adjustment"],
      ["clamp_norm_facotr", "clamp_norm_factor"],
      ["v_num_steps", "v_num_grad_steps"],
    ]
  ) assert.equal(nearest(typed, keys), meant, typed);
  for (const typed of ["", "optimizer", "x"]) assert.equal(nearest(typed, keys), undefined, typed);
  assert.equal(nearest("rome", []), undefined);
});

Deno.test("methodNamed() finds a method in every usual spelling, and else names the nearest", () => {
  for (const name of ["r-rome", "R-ROME", "R_ROME", "rrome"]) assert.equal(methodNamed(name).name, "r-rome");
  assert.equal(methodNamed("ROME").name, "rome");
  const hint = (name: string) => {
    try {
      methodNamed(name);
    } catch (error) {
      assert.ok(error instanceof InputError);
      assert.equal(error.message, `Unknown method "${name}"`);
      return error.hint;
    }
  };
  assert.equal(hint("rmoe"), "Did you mean rome?");
  assert.equal(hint("xyzzy-plugh"), `emend has ${METHODS.map((m) => m.name).join(", ")}`);
});

Deno.test("requireKeys() refuses a key that the method has not, with the nearest one", () => {
  const method = methodNamed("rome");
  method.requireKeys(["v_lr", "layers"]);
  assert.throws(() => method.requireKeys(["v_lr", "kl_facto"]), (error) => {
    assert.ok(error instanceof InputError);
    assert.equal(error.message, 'rome has no hyper-parameter "kl_facto"');
    assert.equal(error.hint, "Did you mean kl_factor?");
    return true;
  });
});

Deno.test("statistics() asks for the edited layers when C is used, and for none when it is not", () => {
  const method = methodNamed("rome");
  const { hparams } = method.parse({ layers: [3] }, "It");
  assert.deepEqual(method.statistics(hparams), [3]);
  assert.deepEqual(method.statistics({ ...hparams, mom2_adjustment: false } as Hparams), []);
});
