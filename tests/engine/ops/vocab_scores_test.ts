import { deepStrictEqual, throws } from "node:assert/strict";
import type { Weight } from "../../../engine/ops/linear.ts";
import { vocabScores } from "../../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, ELEMENTWISE } from "./_reference.ts";
import { type Case, logitsOf, logProbabilities, uploaded, valuesOf } from "./_vocab.ts";

Deno.test(
  "vocabScores() gives log-probabilities and the likeliest token when rows are asked several times",
  withGpu(async (gpu) => {
    for (const [rows, vocab] of [[1, 1], [3, 63], [4, 131]]) {
      const c: Case = { rows, width: 5, vocab, bias: true, overlays: [1] };
      const v = valuesOf(c);
      const places = Array.from({ length: 2 * rows + 65 }, (_, i) => (5 * i + 1) % rows);
      const ids = places.map((row, i) => (7 * i + row) % vocab);
      const [asked, targets] = [places, ids].map((list) => Uint32Array.from(list));
      const n = places.length;
      for (const maxShardBytes of vocab > 100 ? [undefined, 4 * 5 * 40] : [undefined]) {
        const { h, head, free } = uploaded(gpu, { ...c, maxShardBytes }, v);
        const want = { rows: fromHost(gpu, "rows", [n], asked), targets: fromHost(gpu, "ids", [n], targets) };
        const logProbs = createTensor(gpu, "log p", [n]);
        const best = createTensor(gpu, "best", [n], { dtype: "u32" });
        for (const chunk of [undefined, 1, 64, 65, 130]) {
          await evaluate(
            gpu,
            (ctx) => (vocabScores(ctx, h, head, { ...want, chunk }, { logProbs, best }), []),
          );
          const [got, tokens] = await readTensors(gpu, logProbs, best);
          const expected = places.map((row) => logProbabilities(logitsOf(c, v, row)));
          // As for losses: a logit is a dot of `width` of size √width, with an overlay on it.
          const tolerance = 2 * Math.sqrt(c.width) * (ELEMENTWISE + dotTolerance(c.width));
          assertClose(
            got as Float32Array,
            expected.map((row, i) => row[ids[i]]),
            tolerance,
            `${vocab}, ${chunk}`,
          );
          deepStrictEqual([...tokens], expected.map((row) => row.indexOf(Math.max(...row))));
        }
        [want.rows, want.targets, logProbs, best].forEach((t) => freeTensor(gpu, t));
        free();
      }
    }
  }),
);

Deno.test(
  "vocabScores() takes the lowest of equal tokens, and says 0 when all are NaN",
  withGpu(async (gpu) => {
    const vocab = 300, maxima = [70, 71, 134, 200, 299];
    const w = new Float64Array(2 * vocab);
    maxima.forEach((id) => w[2 * id] = 1);
    const matrix = fromHost(gpu, "head", [vocab, 2], w);
    const layout = "out_in" as const;
    const head: Weight = { role: "head", name: "w", matrix, layout, out: vocab, in: 2, overlays: [] };
    // The second row turns the order round: all but the maxima are then likeliest.
    const h = fromHost(gpu, "h", [3, 2], [1, 0, -1, 0, NaN, 0]);
    const three = (label: string, values: number[]) => fromHost(gpu, label, [3], Uint32Array.from(values));
    const want = { rows: three("rows", [0, 1, 2]), targets: three("ids", [71, 0, 5]) };
    const logProbs = createTensor(gpu, "log p", [3]);
    const best = createTensor(gpu, "best", [3], { dtype: "u32" });
    for (const chunk of [undefined, 64, 100]) {
      await evaluate(gpu, (ctx) => (vocabScores(ctx, h, head, { ...want, chunk }, { logProbs, best }), []));
      deepStrictEqual([...(await readTensors(gpu, best))[0]], [70, 0, 0], `chunk ${chunk}`);
    }
    const ctx = { gpu, r: gpu.recorder() };
    const refused = () => vocabScores(ctx, h, head, want, { logProbs: h, best: matrix });
    throws(refused, /rows \[3\] asks for 3 scores, head \[300, 2\] has others/);
    [matrix, h, want.rows, want.targets, logProbs, best].forEach((t) => freeTensor(gpu, t));
  }),
);
