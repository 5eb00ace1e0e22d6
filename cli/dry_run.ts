/** `emend edit --dry-run`: what an edit will take, without touching anything. */
import { estimateEdit, estimateSolver, workBytesOf } from "../editors/estimate.ts";
import { findStatistics } from "../editors/find_statistics.ts";
import type { Hparams } from "../editors/hparams.ts";
import type { Method } from "../editors/methods.ts";
import { type EditRequest, fill, tokenisePrompt } from "../editors/requests.ts";
import { availableMemory } from "../engine/gpu/available.ts";
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { measureMatmul } from "../engine/ops/measure.ts";
import { printJson, seconds, table } from "./terminal.ts";

/** Prints the plan of an edit: memory, time estimate, layers, statistics, and each request's tokens. */
export async function dryRun(
  model: LoadedModel,
  requests: readonly EditRequest[],
  options: { method: Method; hparams: Hparams; source: string; json?: boolean; stats: readonly string[] },
): Promise<void> {
  const { method, hparams, source } = options;
  const { gpu, dims, tokenizer } = model;
  const plan = method.plan(model, requests, hparams);
  const { layer, steps, targets, training } = plan;
  const gated = model.weights.has("layer.0.mlp.gate");
  const estimates = targets.map((t) => estimateEdit(dims, t, { layer, steps, gated }));
  const rate = await measureMatmul(gpu, {
    rows: Math.max(...estimates.map((e) => e.stepRows)),
    width: dims.width,
  });
  const weightBytes = gpu.memory.owners().find(([owner]) => owner === "weights")?.[1] ?? 0;
  const available = availableMemory(gpu);
  const statistics = await statisticsState(model, method.statistics(hparams), options.stats);
  const result = {
    dry_run: true,
    method: method.name,
    hparams,
    source,
    layers: hparams.layers,
    statistics,
    memory: {
      gpu_weights_bytes: weightBytes,
      gpu_work_bytes: workBytesOf(dims, plan),
      gpu_solver_bytes: statistics.length * estimateSolver(dims.inner),
      ...(training ? { gpu_training_bytes: training.deviceBytes, host_edit_bytes: training.hostBytes } : {}),
      ...(available === undefined ? {} : { available_bytes: available }),
    },
    // Attention, norms and losses come on top of the products: a third more on what was measured.
    time_s: estimates.reduce((s, e) => s + e.flops, 0) / rate * 1.33,
    gflops_measured: rate / 1e9,
    requests: requests.map((r, i) => {
      const { ids, subjectLast, text } = tokenisePrompt(tokenizer, fill(r.prompt, r.subject));
      return {
        text,
        target: r.target,
        target_tokens: targets[i].target.map((id) => ({ id, token: tokenizer.token(id) })),
        tokens: ids.map((id, at) => ({
          at,
          id,
          token: tokenizer.token(id),
          subject_last: at === subjectLast,
        })),
        rows: {
          prepare: estimates[i].prepareRows,
          step: estimates[i].stepRows,
          loss: estimates[i].lossRows,
        },
      };
    }),
  };
  if (options.json) return printJson(result);
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  console.log(`Dry run of ${method.name}: nothing is changed. ${source}`);
  console.log(`layer ${layer} of ${dims.layers}, ${steps} steps at most`);
  for (const s of statistics) console.log(`statistics of layer ${s.layer}: ${s.state}`);
  console.log(
    `memory: weights ${mib(weightBytes)}, work about ${mib(result.memory.gpu_work_bytes)}, ` +
      `${
        training
          ? `training ${mib(training.deviceBytes)}, the edit ${mib(training.hostBytes)}`
          : `solver about ${mib(result.memory.gpu_solver_bytes)}`
      }${available === undefined ? "" : `, of ${mib(available)} free`}; time: up to ${
        seconds(result.time_s)
      } at ${result.gflops_measured.toFixed(0)} GFLOP/s measured\n`,
  );
  for (const r of result.requests) {
    console.log(
      `${r.text} →${r.target}   (rows: ${r.rows.prepare} once, ${r.rows.step} a step, ${r.rows.loss} to the head)`,
    );
    const rows = r.tokens.map((
      t,
    ) => [String(t.at), String(t.id), JSON.stringify(t.token), t.subject_last ? "← subject's last" : ""]);
    console.log(table([["at", "id", "token", ""], ...rows]));
    console.log(`target: ${r.target_tokens.map((t) => `${JSON.stringify(t.token)} (${t.id})`).join(" ")}\n`);
  }
}

async function statisticsState(model: LoadedModel, layers: readonly number[], files: readonly string[]) {
  const out: { layer: number; state: string }[] = [];
  for (const layer of layers) {
    try {
      using found = await findStatistics(model, [layer], { files });
      const origin = found.layers.get(layer)!;
      out.push({ layer, state: `${origin.tokens} tokens of ${origin.corpusName}` });
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      const { message, hint } = error;
      out.push({ layer, state: `missing: ${message}${hint === undefined ? "" : `. ${hint}`}` });
    }
  }
  return out;
}
