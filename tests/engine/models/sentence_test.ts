/** BERT and sentence embeddings against transformers; the real all-MiniLM-L6-v2 where it is in the cache. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { cacheFolder } from "../../../engine/io/cache.ts";
import { bert } from "../../../engine/models/bert.ts";
import { packRows } from "../../../engine/models/rows.ts";
import { embedSentences, loadSentenceEncoder, sentenceIds } from "../../../engine/models/sentence.ts";
import type { Hook, Site } from "../../../engine/models/sites.ts";
import type { Ctx } from "../../../engine/ops/context.ts";
import { capture } from "../../../engine/ops/rows.ts";
import { createTensor, freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";
import { readReference, relativeError } from "./_fixtures.ts";

/** The task's; f32 sums of this size differ by about 1e-6. */
const TOLERANCE = 1e-4;

Deno.test(
  "BERT's hidden states are those of transformers",
  withGpu(async (gpu) => {
    const reference = await readReference("bert-tiny");
    using encoder = await loadSentenceEncoder(gpu, reference.folder);
    using rows = packRows(gpu, reference.sequences.map((ids) => ({ ids })), { bidirectional: true });
    const segments = fromHost(gpu, "segments", [rows.count], new Uint32Array(rows.count));
    const kept: [Site, Tensor][] = [];
    const sites: Site[] = ["embed", "layer.0.out", "layer.1.out", "layer.2.out"];
    const hooks = new Map(sites.map((site): [Site, Hook] => [site, (ctx, value) => {
      const copy = createTensor(gpu, site, value.shape);
      capture(ctx, value, undefined, copy);
      kept.push([site, copy]);
      return value;
    }]));
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    bert(ctx, encoder, rows, segments, hooks);
    using plan = ctx.r.finish("bert");
    plan.run();
    assert.equal(kept.length, sites.length);
    for (const [site, got] of kept) {
      const want = reference.sequences.flatMap((_, i) => [
        ...reference.tensors.get(`seq${i}.${site}`)!.values,
      ]);
      const error = relativeError(await readF32(gpu, got), want);
      assert.ok(error <= TOLERANCE, `${site} is off by ${error.toExponential(2)} relative`);
      freeTensor(gpu, got);
    }
    freeTensor(gpu, segments);
  }),
);

Deno.test(
  "sentence embeddings are those of transformers, each text by itself or among others",
  withGpu(async (gpu) => {
    const { folder, tensors } = await readReference("bert-tiny");
    const { texts, ids } = JSON.parse(await Deno.readTextFile(`${folder}/reference.json`));
    const held = () => new Map(gpu.memory.owners()).get("encoder") ?? 0;
    assert.equal(held(), 0);
    {
      using encoder = await loadSentenceEncoder(gpu, folder);
      const { size } = await Deno.stat(`${folder}/model.safetensors`);
      assert.ok(Math.abs(held() - size) < 0.1 * size, "the encoder's memory is counted under its name");
      assert.deepEqual(texts.map((text: string) => sentenceIds(encoder, text)), ids);
      const { values } = tensors.get("embeddings")!;
      const got = await embedSentences(encoder, texts);
      assert.ok(relativeError(got, values) <= TOLERANCE);
      const alone = await embedSentences(encoder, [texts[2]]);
      assert.ok(relativeError(alone, got.subarray(2 * 32, 3 * 32)) <= 1e-6);
    }
    assert.equal(held(), 0, "the encoder left memory behind");
  }),
);

Deno.test(
  "a language model is no sentence encoder",
  withGpu(async (gpu) => {
    const { folder } = await readReference("gpt2-tiny");
    await assert.rejects(
      () => loadSentenceEncoder(gpu, folder),
      /sentence encoder has the model_type "bert"/,
    );
  }),
);

const MINILM = join(cacheFolder(), "models", "all-MiniLM-L6-v2");
const missing = !await Deno.stat(MINILM).catch(() => undefined);
if (missing) console.log("skipped: all-MiniLM-L6-v2 is not in the cache (deno run -A tools/minilm.ts)");

Deno.test({
  name: "all-MiniLM-L6-v2 gives the embeddings that transformers gives",
  ignore: missing,
  fn: withGpu(async (gpu) => {
    const url = new URL("../../fixtures/models/minilm-reference.json", import.meta.url);
    const { texts, embeddings } = JSON.parse(await Deno.readTextFile(url));
    using encoder = await loadSentenceEncoder(gpu, MINILM);
    assert.ok(relativeError(await embedSentences(encoder, texts), embeddings.flat()) <= TOLERANCE);
  }),
});
