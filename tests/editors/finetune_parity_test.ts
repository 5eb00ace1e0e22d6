/**
 * Fine-tuning against other people's code (kmeng01/rome's and EasyEdit's baselines, peft's adapters) on the same
 * models, token ids and starting values: the loss of every batch, and what training changed. Fixtures are made
 * by tools/fixtures/finetune.py. Adam divides by the root of squared gradients, so an element whose gradient is
 * nearly zero amplifies rounding: changes are compared by norm.
 */
import assert from "node:assert/strict";
import { allRoles, projectionRoles, trainTensors } from "../../editors/finetune/dense.ts";
import { adaLora, type Factors, lora, targetMaps } from "../../editors/finetune/lora.ts";
import { type Example, type Objective, train } from "../../editors/finetune/train.ts";
import { parseSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";
import { checkpointLayout } from "../../engine/models/layout.ts";
import { loadModel } from "../../engine/models/load.ts";
import type { Model } from "../../engine/models/model.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { withGpu } from "../_gpu.ts";

const fixtures = new URL("../fixtures/", import.meta.url).pathname;

async function tensors(path: string): Promise<Map<string, { shape: number[]; values: Float32Array }>> {
  const file = await parseSafetensors(await openFile(path));
  const out = new Map<string, { shape: number[]; values: Float32Array }>();
  for (const entry of file.entries.values()) {
    const values = new Float32Array((await file.read(entry)).slice().buffer);
    out.set(entry.name, { shape: entry.shape, values });
  }
  file.source.close();
  return out;
}

function close(name: string, got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number): void {
  const error = relativeError(got, want);
  assert.ok(error <= tolerance, `${name} is off by ${error.toExponential(2)} relative`);
}

/** The checkpoint's name of a role. */
function nameOf(model: Model, role: string): string {
  for (const entry of checkpointLayout(model.config)) {
    if (entry.role === role) return entry.name;
    if (entry.kind === "linear" && `${entry.role}.bias` === role) return entry.bias!;
  }
  throw new Error(role);
}

const read = async (name: string) => ({
  spec: JSON.parse(await Deno.readTextFile(`${fixtures}finetune/${name}.json`)),
  want: await tensors(`${fixtures}finetune/${name}.safetensors`),
});

/** Losses of batches in the order in which the reference prints them, from the losses of examples. */
function batchLosses(losses: number[][], batch: number): number[] {
  return losses.flatMap((row) => {
    const out = [];
    for (let first = 0; first < row.length; first += batch) {
      const part = row.slice(first, first + batch);
      out.push(part.reduce((a, b) => a + b, 0) / part.length);
    }
    return out;
  });
}

for (
  const name of [
    "ft-gpt2",
    "ft-l-historic-gpt2",
    "ft-l-historic-llama",
    "ft-decay-llama",
    "ft-m-gpt2",
    "ft-m-llama",
    "ft-m-llama-early-stop",
  ]
) {
  Deno.test(
    `${name} agrees with the authors' code`,
    withGpu(async (gpu) => {
      const { spec, want } = await read(name);
      const { layers, norm_constraint, objective_optimization, ...hparams } = spec.hparams;
      using model = await loadModel(gpu, `${fixtures}models/${spec.model}`, { tokenizer: false });
      const radius = norm_constraint === false ? undefined : norm_constraint as number;
      using adaptation = trainTensors(model, projectionRoles(model, layers), radius);
      const waits = gpu.waits;
      const { losses, steps } = await train(model, spec.examples as Example[], adaptation, {
        ...hparams,
        objective_optimization: objective_optimization as Objective,
      });
      assert.equal(gpu.waits - waits, 1, "waits");
      // The reference stops before the update that follows a loss below the threshold, and never looks again
      // after its last one.
      const printed = batchLosses(losses, hparams.batch_size).slice(0, spec.losses.length);
      assert.equal(printed.length, spec.losses.length, "batches");
      if (steps < hparams.num_steps) {
        assert.equal(batchLosses(losses, hparams.batch_size).length, spec.losses.length, "stopped elsewhere");
      }
      close("losses", printed, spec.losses, 1e-5);
      for (const { role, values } of await adaptation.changes()) {
        close(role, values, want.get(`delta.${nameOf(model, role)}`)!.values, 1e-4);
      }
      assert.equal((await adaptation.changes()).length, want.size);
    }),
  );
}

for (const name of ["full-gpt2", "full-llama"]) {
  Deno.test(
    `${name} agrees with torch.optim.Adam on all parameters`,
    withGpu(async (gpu) => {
      const { spec, want } = await read(name);
      using model = await loadModel(gpu, `${fixtures}models/${spec.model}`, { tokenizer: false });
      using adaptation = trainTensors(model, allRoles(model));
      const { losses } = await train(model, spec.examples as Example[], adaptation, {
        ...spec.hparams,
        objective_optimization: "target_new",
        batch_size: 3,
        threshold: 0,
      });
      close("losses", batchLosses(losses, 3).slice(0, spec.losses.length), spec.losses, 1e-5);
      const changes = await adaptation.changes();
      assert.equal(changes.length, want.size);
      for (const { role, values } of changes) {
        close(role, values, want.get(`delta.${nameOf(model, role)}`)!.values, 1e-4);
      }
    }),
  );
}

/** peft's [rows, cols] as [cols, rows]. */
function transposed(
  { shape: [rows, cols], values }: { shape: number[]; values: Float32Array },
): Float32Array {
  return Float32Array.from(values, (_, at) => values[(at % rows) * cols + Math.floor(at / rows)]);
}

for (const name of ["lora-gpt2", "lora-llama", "adalora-gpt2", "adalora-llama"]) {
  Deno.test(
    `${name} agrees with peft`,
    withGpu(async (gpu) => {
      const { spec, want } = await read(name);
      using model = await loadModel(gpu, `${fixtures}models/${spec.model}`, { tokenizer: false });
      const maps = targetMaps(model, spec.target_modules, spec.layers ?? []);
      const starts = maps.map(({ role, name: tensor }): Factors => {
        const module = tensor.replace(/\.weight$/, "");
        const ada = name.startsWith("adalora");
        const part = (kind: string) =>
          want.get(`start.base_model.model.${module}.lora_${kind}.default${ada ? "" : ".weight"}`)!;
        return { role, left: part("B").values, right: transposed(part("A")) };
      });
      const { num_steps, lr, config } = spec;
      using adaptation = name.startsWith("adalora")
        ? adaLora(model, starts, { beta1: 0.85, beta2: 0.85, num_steps, ...config })
        : lora(model, starts, { rank: config.r, lora_alpha: config.lora_alpha });
      const { losses, penalties } = await train(model, spec.examples as Example[], adaptation, {
        objective_optimization: "target_new",
        weight_decay: 0,
        batch_size: 3,
        threshold: 0,
        num_steps,
        lr,
      });
      close("losses", batchLosses(losses, 3).slice(0, num_steps), spec.losses, 1e-5);
      if (name.startsWith("adalora")) close("penalties", penalties.slice(0, num_steps), spec.penalties, 1e-5);
      const deltas = await adaptation.deltas();
      for (const { role, rank, left, right } of deltas) {
        const w = model.weights.get(role)!;
        const dense = new Float64Array(w.out * w.in);
        for (let o = 0; o < w.out; o++) {
          for (let i = 0; i < w.in; i++) {
            let sum = 0;
            for (let r = 0; r < rank; r++) sum += left[o * rank + r] * right[i * rank + r];
            dense[w.layout === "out_in" ? o * w.in + i : i * w.out + o] = sum;
          }
        }
        close(role, dense, want.get(`delta.${w.name}`)!.values, 1e-4);
      }
      assert.equal(deltas.length, [...want.keys()].filter((key) => key.startsWith("delta.")).length);
      if (name.startsWith("adalora")) {
        assert.equal(deltas.reduce((sum, { rank }) => sum + rank, 0), spec.ranks.at(-1));
      }
    }),
  );
}
