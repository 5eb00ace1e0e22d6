import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError } from "../../engine/io/errors.ts";
import type { LowRankDelta, Patch } from "../../patches/patch.ts";
import { writePeft } from "../../patches/peft.ts";
import { inFolder } from "../engine/io/_data.ts";
import { filesOf, readTensor } from "./_models.ts";

const FIRST: LowRankDelta = {
  kind: "low-rank",
  tensor: "transformer.h.1.mlp.c_proj.weight",
  role: "layer.1.mlp.down",
  layout: "in_out",
  left: Float32Array.of(1, 2, 3, 4, 5, 6),
  right: Float32Array.of(7, 8, 9, 10),
  ranks: [0, 1],
};
const SECOND: LowRankDelta = {
  ...FIRST,
  tensor: "transformer.h.11.mlp.c_proj.weight",
  role: "layer.11.mlp.down",
  left: Float32Array.of(1, 2, 3),
  right: Float32Array.of(4, 5),
  ranks: [0],
};
const PATCH: Patch = {
  base: { hash: "0".repeat(64), name: "gpt2" },
  modelType: "gpt2",
  method: "rome",
  hparams: {},
  requests: [],
  deltas: [FIRST, SECOND],
  version: "0.1.0",
};

Deno.test("writePeft() writes B = left and A = rightᵀ, filled up with zeros, at scale 1", async () => {
  await inFolder(async (folder) => {
    await writePeft(folder, PATCH);
    const weights = join(folder, "adapter_model.safetensors");
    const name = (n: number, part: string) =>
      `base_model.model.transformer.h.${n}.mlp.c_proj.lora_${part}.weight`;
    const check = async (n: number, part: string, shape: number[], values: number[]) =>
      assert.deepEqual(await readTensor(weights, name(n, part)), {
        shape,
        values: Float32Array.from(values),
      });
    await check(1, "A", [2, 2], [7, 9, 8, 10]);
    await check(1, "B", [3, 2], [1, 2, 3, 4, 5, 6]);
    await check(11, "A", [2, 2], [4, 5, 0, 0]);
    await check(11, "B", [3, 2], [1, 0, 2, 0, 3, 0]);
    const config = JSON.parse(await Deno.readTextFile(join(folder, "adapter_config.json")));
    assert.equal(config.lora_alpha / config.r, 1);
    assert.deepEqual(config.target_modules, ["transformer.h.1.mlp.c_proj", "transformer.h.11.mlp.c_proj"]);
    assert.equal(config.fan_in_fan_out, true);
    assert.equal(config.base_model_name_or_path, "gpt2");
  });
});

Deno.test("writePeft() replaces an earlier adapter, and refuses what has no low rank", async () => {
  await inFolder(async (folder) => {
    await writePeft(folder, PATCH);
    await writePeft(folder, { ...PATCH, deltas: [{ ...FIRST, layout: "out_in" }] });
    const files = await filesOf(folder);
    assert.equal(JSON.parse(new TextDecoder().decode(files["adapter_config.json"])).fan_in_fan_out, false);
    const { tensor, role } = FIRST;
    const dense = { kind: "dense" as const, tensor, role, shape: [1], values: Float32Array.of(1) };
    await assert.rejects(
      writePeft(folder, { ...PATCH, deltas: [FIRST, dense] }),
      (error) =>
        error instanceof InputError &&
        /"transformer.h.1.mlp.c_proj.weight" has no low rank$/.test(error.message),
    );
    assert.deepEqual(await filesOf(folder), files);
  });
});
