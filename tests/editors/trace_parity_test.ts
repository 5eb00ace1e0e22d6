/**
 * Causal tracing against the authors' code (kmeng01/rome), on tiny models of twelve layers, and against the plain
 * way of doing it. Fixtures are made by tools/fixtures/tracing.py.
 */
import assert from "node:assert/strict";
import { legacyNormals, subjectDeviation } from "../../editors/tracing/noise.ts";
import { TRACE_KINDS } from "../../editors/tracing/cells.ts";
import { traceGrids } from "../../editors/tracing/grids.ts";
import { loadModel } from "../../engine/models/load.ts";
import { withGpu } from "../_gpu.ts";
import { traceCases, traceTensors, TRACING } from "./_trace.ts";

Deno.test("legacyNormals() draws what NumPy's RandomState(1) draws", async () => {
  const want = (await traceTensors("gpt2-deep")).get("draws")!;
  const got = legacyNormals(1, want.length);
  assert.deepEqual(Float32Array.from(got), want);
  assert.deepEqual(legacyNormals(1, 7), got.slice(0, 7));
});

for (const name of ["gpt2-deep", "llama-deep"]) {
  Deno.test(
    `traceGrids() on ${name} agrees with the authors' code`,
    withGpu(async (gpu) => {
      const want = await traceTensors(name);
      using model = await loadModel(gpu, `${TRACING}${name}`, { tokenizer: false });
      for (const [at, prompt] of Object.entries(await traceCases(name))) {
        for (const window of [10, 3]) {
          const { noise } = prompt;
          const { clean, corrupted, scores } = await traceGrids(model, prompt, {
            kinds: TRACE_KINDS,
            window,
            noise,
          });
          assert.ok(Math.abs(clean / prompt.clean - 1) < 1e-4, `${at}: P ${clean}, ${prompt.clean}`);
          assert.ok(Math.abs(corrupted / prompt.corrupted - 1) < 1e-4, `${at}: P* ${corrupted}`);
          for (const kind of TRACE_KINDS) {
            const grid = want.get(`${at}.${kind}.${kind === "mlp" || kind === "attn" ? window : 0}`)!;
            const off = scores[kind]!.flat().map((p, i) => Math.abs(p / grid[i] - 1));
            assert.equal(off.length, grid.length);
            const worst = Math.max(...off);
            assert.ok(worst <= 1e-4, `${at} ${kind} ${window} is off by ${worst.toExponential(2)}`);
          }
        }
      }
    }),
  );

  Deno.test(
    `subjectDeviation() on ${name} agrees with the authors' code`,
    withGpu(async (gpu) => {
      const want = (await traceTensors(name)).get("embeddings.std")![0];
      using model = await loadModel(gpu, `${TRACING}${name}`, { tokenizer: false });
      const ids = Object.values(await traceCases(name)).map((c) => c.subject_ids);
      const encode = (text: string) => ids[Number(text)];
      const speaking = Object.create(model, { tokenizer: { value: { encode } } }) as typeof model;
      const got = await subjectDeviation(speaking, ids.map((_, i) => String(i)));
      assert.ok(Math.abs(got / want - 1) < 1e-6, `${got}, ${want}`);
    }),
  );
}
