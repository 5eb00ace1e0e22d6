/** A GPT-2 whose MLP projections are square, so that no shape tells how they are stored. */
import { parseSafetensors } from "../../engine/io/safetensors.ts";
import { writeSafetensors } from "../../engine/io/safetensors_write.ts";
import { openFile } from "../../engine/io/source.ts";
import { modelFolder } from "../patches/_models.ts";

/** gpt2-tiny with the first 32 of its 128 MLP neurons: [32, 32] projections, stored transposed. */
export async function writeSquareGpt2(folder: string) {
  const from = modelFolder("gpt2-tiny");
  const config = JSON.parse(await Deno.readTextFile(`${from}/config.json`));
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ ...config, n_inner: 32 }));
  const file = await parseSafetensors(await openFile(`${from}/model.safetensors`));
  const tensors = [];
  for (const entry of file.entries.values()) {
    let values = new Float32Array((await file.read(entry)).slice().buffer);
    let { shape } = entry;
    if (entry.name.endsWith("c_fc.weight")) {
      values = values.filter((_, i) => i % 128 < 32);
      shape = [32, 32];
    } else if (entry.name.endsWith("c_fc.bias")) {
      values = values.slice(0, 32);
      shape = [32];
    } else if (entry.name.endsWith("mlp.c_proj.weight")) {
      values = values.slice(0, 32 * 32);
      shape = [32, 32];
    }
    const bytes = new Uint8Array(values.buffer, 0, 4 * values.length);
    tensors.push({ name: entry.name, dtype: "F32" as const, shape, data: () => [bytes] });
  }
  file.source.close();
  await writeSafetensors(`${folder}/model.safetensors`, tensors, { format: "pt" });
}
