/**
 * Writes one edit in all three forms, for make_fixtures.py.
 *
 *     deno run -A tools/patches/write.ts MODEL FACTORS.safetensors OUT
 *
 * FACTORS holds `ROLE.left` [out, rank] and `ROLE.right` [in, rank]. OUT gets patch.safetensors, model/ and
 * adapter/.
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

const [path, factors, out] = Deno.args;
const file = await parseSafetensors(await openFile(factors));
const deltas: Edit["deltas"] = [];
for (const entry of file.entries.values()) {
  if (!entry.name.endsWith(".left")) continue;
  const role = entry.name.slice(0, -".left".length);
  const left = toFloat32("F32", await file.read(entry));
  const right = toFloat32("F32", await file.read(file.entries.get(`${role}.right`)!));
  deltas.push({ role, rank: entry.shape[1], left, right });
}
const requests = deltas.map(({ role }) => ({
  prompt: `{} in ${role} is`,
  subject: "Noise",
  target: " noise",
}));
using model = await loadModel(await Gpu.open(), path, { tokenizer: false });
const patch = await patchOf(model, { method: "rome", hparams: {}, requests, deltas, outcomes: [] });
await writePatch(join(out, "patch.safetensors"), patch);
await writePeft(join(out, "adapter"), patch);
console.log(
  JSON.stringify(await writeCheckpoint(join(out, "model"), model.checkpoint, patch.deltas), null, 1),
);
Deno.exit();
