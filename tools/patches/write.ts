/**
 * Writes one edit in all three forms, for make_fixtures.py.
 *
 *     deno run -A tools/patches/write.ts MODEL FACTORS.safetensors OUT
 *
 * FACTORS holds `ROLE.left` [out, rank] and `ROLE.right` [in, rank], or `N:ROLE.left` and so on for a stack of
 * patches with one change each. OUT gets patch.safetensors, model/ and adapter/.
 */
import { join } from "node:path";
import type { Edit } from "../../editors/edit.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { toFloat32 } from "../../engine/io/convert.ts";
import { parseSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";
import { loadModel } from "../../engine/models/load.ts";
import { writeCheckpoint } from "../../patches/checkpoint.ts";
import { patchOf, writePatch } from "../../patches/patch.ts";
import { writePeft } from "../../patches/peft.ts";
import { stackPatches } from "../../patches/stack.ts";

const [path, factors, out] = Deno.args;
const file = await parseSafetensors(await openFile(factors));
const deltas: Edit["deltas"] = [];
for (const entry of file.entries.values()) {
  if (!entry.name.endsWith(".left")) continue;
  const name = entry.name.slice(0, -".left".length);
  const left = toFloat32("F32", await file.read(entry));
  const right = toFloat32("F32", await file.read(file.entries.get(`${name}.right`)!));
  deltas.push({ role: name.replace(/^\d+:/, ""), rank: entry.shape[1], left, right });
}
using model = await loadModel(await Gpu.open(), path, { tokenizer: false });
const patchWith = (deltas: Edit["deltas"]) => {
  const requests = deltas.map(({ role }) => ({
    prompt: `{} in ${role} is`,
    subject: "Noise",
    target: " noise",
  }));
  return patchOf(model, { method: "rome", hparams: {}, requests, deltas, outcomes: [] });
};
const stacked = [...file.entries.keys()].every((name) => /^\d+:/.test(name));
const parts = await Promise.all((stacked ? deltas.map((delta) => [delta]) : [deltas]).map(patchWith));
const patch = stackPatches(parts);
await writePatch(join(out, "patch.safetensors"), patch);
await writePeft(join(out, "adapter"), patch);
console.log(
  JSON.stringify(await writeCheckpoint(join(out, "model"), model.checkpoint, patch.deltas), null, 1),
);
Deno.exit();
