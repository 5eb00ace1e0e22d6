/** The training of SERAC: what a value that is not finite leaves behind. Kills are in tests/cli/train_test.ts. */
import { deepStrictEqual, ok, rejects } from "node:assert/strict";
import { join } from "node:path";
import { optimiser } from "../../editors/serac/adam.ts";
import { follow, PartDivergedError, type Reached } from "../../editors/serac/course.ts";
import { readSerac, type SeracEditor } from "../../editors/serac/file.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { fill } from "../../engine/ops/elementwise.ts";
import { scopeLoss } from "../../engine/ops/scope_loss.ts";
import { reshape } from "../../engine/tensor/tensor.ts";
import { fromHost, readF32, writeTensor } from "../../engine/tensor/transfer.ts";
import { trainInFolder } from "../../training/serac.ts";
import { groupMean } from "../../engine/ops/rows.ts";
import { withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";

Deno.test(
  "a part that meets an infinity stops there: nothing learns from it, and the last good step is what was saved",
  withGpu(async (gpu) => {
    // One vector is drawn to another: D of them is the loss.
    const a = fromHost(gpu, "a", [1, 2], [1, 2]), b = fromHost(gpu, "b", [1, 2], [0, 0]);
    const words = (value: number) => fromHost(gpu, "words", [1], Uint32Array.of(value));
    const one = fromHost(gpu, "one", [1], [1]), loss = fromHost(gpu, "loss", [1, 1], [0]);
    const positive = words(1), group = words(0);
    using adam = optimiser(gpu, [a]);
    const saved: Reached<unknown>[] = [], bests: number[] = [];
    let reached: number[] = [];
    const part = {
      name: "vector",
      optimiser: adam,
      loss,
      step(index: number) {
        if (index === 3) writeTensor(gpu, b, [Infinity, 0]);
        const tape = new Tape(), ctx: Ctx = { gpu, r: gpu.recorder(), tape };
        adam.require(ctx);
        const d = scopeLoss(ctx, { a, b, positive, weights: one });
        groupMean(ctx, reshape(d, [1, 1]), group, one, loss);
        const seed = temp(ctx, "d loss", [1]);
        fill(ctx, seed, 1);
        tape.setGrad(d, seed);
        tape.backward();
        adam.step(ctx, loss, 0.1);
        using plan = ctx.r.finish("step");
        plan.run();
      },
      held: async () => (await readF32(gpu, loss))[0],
    };
    const diverging = follow(gpu, part, {
      ...{ steps: 6, val_interval: 1, saveEvery: 1 },
      onSave: async (now) => {
        saved.push(now);
        reached = [...await readF32(gpu, a)];
      },
      onBest: ({ best }) => Promise.resolve(void bests.push(best)),
    });
    await rejects(diverging, (error) => {
      ok(error instanceof PartDivergedError);
      const [told] = error.message.split("\n");
      deepStrictEqual(told, "Training of the vector stopped at step 4: its loss is not finite");
      return true;
    });
    deepStrictEqual(saved.map(({ step }) => step), [1, 2, 3]);
    deepStrictEqual(bests, [1, 2, 3]);
    deepStrictEqual([...await readF32(gpu, a)], reached);
  }),
);

Deno.test("a training that diverges names the editor that it leaves", () =>
  inFolder(async (folder) => {
    const about = { name: "facts", hash: "0", records: 4 };
    const base = { hash: "0".repeat(64), tokenizer: "1".repeat(64), name: "model" };
    const editor: SeracEditor = {
      method: "serac",
      base: base.hash,
      encoder: { kind: "states", layers: [0] },
      projection: { mean: Float32Array.of(0), matrix: Float32Array.of(1), bias: Float32Array.of(2) },
      adapter: [{ role: "layer.0.mlp.up", rank: 1, left: Float32Array.of(1), right: Float32Array.of(2) }],
      training: {},
    };
    const training = (out: string, best: boolean) =>
      trainInFolder({
        config: {
          method: "serac",
          base,
          data: about,
          validation: about,
          seed: 0,
          hparams: {},
          version: "test",
        },
        ...{ roles: ["layer.0.mlp.up"], out, resume: false, saveEvery: 1 },
      }, async ({ onBest }) => {
        if (best) await onBest!(editor);
        throw new PartDivergedError("counterfactual model", 7, "its gradient");
      });
    const told = "Training of the counterfactual model stopped at step 7: its gradient is not finite";
    const out = join(folder, "a"), path = join(out, "editor.safetensors");
    await rejects(training(out, true), {
      message: `${told}; ${path} keeps the best one so far\nLower its learning rate`,
    });
    deepStrictEqual(await readSerac(path), editor);
    await rejects(training(join(folder, "b"), false), { message: `${told}\nLower its learning rate` });
  }));
