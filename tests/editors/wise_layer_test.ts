/** The layer of a side memory: whatever is done to the map's output, the layer leaves what a whole pass would. */
import assert from "node:assert/strict";
import { withParts } from "../../editors/beside/map_rows.ts";
import { type AtWork, throughLayer } from "../../editors/wise/through_layer.ts";
import { loadModel } from "../../engine/models/load.ts";
import { forward } from "../../engine/models/model.ts";
import type { Part } from "../../engine/models/parts.ts";
import { packRows } from "../../engine/models/rows.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { add, copy } from "../../engine/ops/elementwise.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { readTensors } from "../../engine/tensor/transfer.ts";
import { withGpu } from "../_gpu.ts";
import { modelFolder } from "../patches/_models.ts";

const TEXTS = [{ ids: [5, 9, 3, 12, 7] }, { ids: [40, 2] }, { ids: [8, 8, 31] }];

for (const name of ["gpt2-tiny", "llama-tiny"]) {
  for (const map of ["down", "up"]) {
    Deno.test(
      `a layer with another output of its ${map} map leaves what a whole pass does: ${name}`,
      withGpu(async (gpu) => {
        using model = await loadModel(gpu, modelFolder(name), { tokenizer: false });
        using rows = packRows(gpu, TEXTS, { windows: model.dims.windows });
        for (const layer of [0, model.dims.layers - 1]) {
          const role = `layer.${layer}.mlp.${map}`;
          using owned = new DisposableStack();
          const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
          const shape = [rows.count, model.dims.width];
          const [got, want] = ["got", "want"].map((label) => own(createTensor(gpu, label, shape)));
          const twice = (ctx: Ctx) => ({ y }: AtWork) => add(ctx, y, y);
          const part: Part = {
            at: new Map([[role, (ctx, at) => twice(ctx)(at)]]),
            whole: [],
            tensors: new Map(),
            [Symbol.dispose]() {},
          };
          const layerWith = throughLayer(model, role, rows, own);
          const ctx: Ctx = { gpu, r: gpu.recorder() };
          copy(ctx, layerWith(ctx, twice(ctx)), got);
          copy(ctx, forward(ctx, withParts(model, [part]), rows, { to: layer + 1 }), want);
          using plan = ctx.r.finish("both ways");
          plan.run();
          const [a, b] = await readTensors(gpu, got, want);
          assert.ok(b.some((v) => v !== 0));
          assert.deepEqual(a, b, role);
        }
      }),
    );
  }
}
