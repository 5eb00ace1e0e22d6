/** `emend train --method serac`: trains a scope classifier and a counterfactual model (see docs/memory-methods.md). */
import { join } from "node:path";
import { z } from "npm:zod@4.6.7";
import { encoderNamed, stateEncoder } from "../editors/prompts/encoders.ts";
import { parseHparams, requireKeys } from "../editors/hparams.ts";
import { writeSerac } from "../editors/serac/file.ts";
import { SERAC_TRAINING, trainSerac } from "../editors/serac/train.ts";
import { checkWritable } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import { atlasSeracRecords, fileSeracRecords } from "../training/serac_records.ts";
import { number, parseSettings } from "./inputs.ts";
import { openSession } from "./model.ts";
import { printJson, seconds } from "./terminal.ts";

const { scope, adapter } = SERAC_TRAINING;
const count = (value: number) => z.number().int().min(1).default(value);
const rate = (value: number) => z.number().positive().default(value);

const schema = z.object({
  /** `states`, `minilm`, `auto` or a folder, as for editing; of `states` the layers whose means it takes. */
  encoder: z.string().default("states"),
  layers: z.array(z.number().int().min(0)).min(1).default([0, 1, 2]),
  scope_width: count(scope.width),
  scope_steps: count(scope.steps),
  scope_batch: count(scope.batch),
  scope_lr: rate(scope.lr),
  rank: count(adapter.rank),
  max_steps: count(adapter.steps),
  batch: count(adapter.batch),
  lr: rate(adapter.lr),
  val_interval: count(adapter.val_interval),
  patience: count(adapter.patience),
});

/** For `--help`. */
export const SERAC_SETTINGS = Object.entries(schema.parse({})).map(([key, value]) => `${key}=${value}`).join(
  " ",
);

/** What it takes of the command's flags. */
interface Flags {
  model: string;
  dataset: string;
  out: string;
  set: string[];
  steps?: string;
  seed: string;
  resume?: boolean;
  json?: boolean;
}

export async function runTrainSerac(flags: Flags): Promise<void> {
  if (flags.resume) {
    throw new InputError("The training of serac cannot be resumed", { hint: "Start it without --resume" });
  }
  const seed = number("--seed", flags.seed, 0, 2 ** 32 - 1, true);
  const given = { ...parseSettings(flags.set), ...flags.steps ? { max_steps: Number(flags.steps) } : {} };
  requireKeys("serac in training", schema, Object.keys(given));
  const { hparams: h } = parseHparams(schema, given, "--set");
  const out = join(flags.out, "editor.safetensors");
  await Deno.mkdir(flags.out, { recursive: true });
  await checkWritable(out);
  const records = await (flags.dataset === "atlas" ? atlasSeracRecords() : fileSeracRecords(flags.dataset));

  using session = await openSession(flags.model);
  const { model } = session;
  const encoder = h.encoder === "states"
    ? stateEncoder(model, h.layers)
    : await encoderNamed(model, h.encoder);
  const start = performance.now();
  const passed = () => (performance.now() - start) / 1000;
  const editor = await trainSerac(model, encoder, records, flags.dataset.split(/[\\/]/).at(-1)!, {
    scope: { width: h.scope_width, steps: h.scope_steps, batch: h.scope_batch, lr: h.scope_lr },
    adapter: {
      ...{ rank: h.rank, steps: h.max_steps, batch: h.batch, lr: h.lr },
      ...{ val_interval: h.val_interval, patience: h.patience },
    },
    seed,
    onProgress: (part, done, total, loss) =>
      console.error(
        `${part} ${done} of ${total}${loss === undefined ? "" : `  loss ${loss.toFixed(4)}`}  ${
          seconds(passed())
        }`,
      ),
  });
  await writeSerac(out, editor);
  const summary = {
    ...{ method: editor.method, model: flags.model, adapter: session.gpu.description, hparams: h },
    ...{ training: editor.training, time_s: passed(), written: [out] },
  };
  if (flags.json) return printJson(summary);
  console.log(`${records.length} facts, ${seconds(passed())}. Written: ${out}`);
  console.log(`Use it with --method serac --set editor=${out}`);
}
