/** `emend train --method serac`: trains a scope classifier and a counterfactual model (see docs/memory-methods.md). */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { z } from "npm:zod@4.6.7";
import manifest from "../deno.json" with { type: "json" };
import { parseHparams, requireKeys } from "../editors/hparams.ts";
import { editorBase } from "../editors/hypernetworks/file.ts";
import { encoderNamed, stateEncoder } from "../editors/prompts/encoders.ts";
import type { SeracRecord } from "../editors/serac/data.ts";
import type { Course } from "../editors/serac/course.ts";
import { findSerac, type SeracEditor } from "../editors/serac/file.ts";
import {
  EASYEDIT_TRAINING,
  requireSubjects,
  SERAC_TRAINING,
  trainSerac,
  trainSeracEasyEdit,
} from "../editors/serac/train.ts";
import { writeFileAtomic } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { drawCourses, type PartCourse } from "../training/curves.ts";
import { checkTrainingFolder, type TrainingConfig } from "../training/folder.ts";
import { atlasSeracRecords, fileSeracRecords } from "../training/serac_records.ts";
import { recordOptions } from "./train_records.ts";
import { type SeracReport, trainInFolder } from "../training/serac.ts";
import { number, parseSettings, readHparams } from "./inputs.ts";
import { openSession } from "./model.ts";
import { printJson, seconds } from "./terminal.ts";

const { scope, adapter } = SERAC_TRAINING, mixed = EASYEDIT_TRAINING;
const count = (value: number) => z.number().int().min(1).default(value);
const rate = (value: number) => z.number().positive().default(value);

/** `states`, `minilm`, `auto` or a folder, as for editing; of `states` the layers whose means it takes. */
const encoding = {
  encoder: z.string().default("states"),
  layers: z.array(z.number().int().min(0)).min(1).default([0, 1, 2]),
};

const SCHEMAS = {
  "serac": z.object({
    ...encoding,
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
  }),
  "serac-easyedit": z.object({
    ...encoding,
    /** An editor of `serac`, whose counterfactual model is where this one's starts. */
    start: z.string().optional(),
    width: count(mixed.width),
    rank: count(mixed.rank),
    pairs: count(mixed.pairs),
    max_steps: count(mixed.steps),
    batch: count(mixed.batch),
    lr: rate(mixed.lr),
    val_interval: count(mixed.val_interval),
    patience: count(mixed.patience),
    cedit: rate(mixed.cedit),
    cloc: rate(mixed.cloc),
  }),
};

type SeracMethod = keyof typeof SCHEMAS;

/** The editors that it trains. */
export const SERAC_METHODS = Object.keys(SCHEMAS) as SeracMethod[];

/** A method's hyper-parameters for `--help`. */
export function seracSettings(method: SeracMethod): string {
  const schema = SCHEMAS[method], defaults = schema.parse({}) as Record<string, unknown>;
  return Object.keys(schema.shape).map((key) => key in defaults ? `${key}=${defaults[key]}` : key).join(" ");
}

/** What it takes of the command's flags. */
interface Flags {
  model: string;
  dataset: string;
  validation?: string;
  skipIncomplete?: boolean;
  without: string[];
  hparams?: string;
  out: string;
  set: string[];
  steps?: string;
  seed: string;
  resume?: boolean;
  saveEvery: string;
  json?: boolean;
}

export async function runTrainSerac(method: SeracMethod, flags: Flags): Promise<void> {
  if (flags.validation !== undefined) {
    throw new InputError(
      `${method} takes no --validation: it keeps the facts of every 12th subject for that`,
    );
  }
  const seed = number("--seed", flags.seed, 0, 2 ** 32 - 1, true);
  const saveEvery = number("--save-every", flags.saveEvery, 1, 1e9, true);
  const steps = flags.steps === undefined ? {} : { max_steps: number("--steps", flags.steps, 1, 1e9, true) };
  const given = { ...flags.hparams ? await readHparams(flags.hparams) : {}, ...parseSettings(flags.set) };
  requireKeys(`${method} in training`, SCHEMAS[method], Object.keys(given));
  const where = flags.hparams ?? "The training's settings";
  const { hparams: h } = parseHparams(SCHEMAS[method], { ...given, ...steps }, where);
  const resume = flags.resume ?? false;
  await checkTrainingFolder(flags.out, resume);
  const options = await recordOptions(flags);
  const records =
    await (flags.dataset === "atlas" ? atlasSeracRecords() : fileSeracRecords(flags.dataset, options));
  requireSubjects(records);

  using session = await openSession(flags.model);
  const { model } = session;
  const encoder = h.encoder === "states"
    ? stateEncoder(model, h.layers)
    : await encoderNamed(model, h.encoder);
  const data = flags.dataset.split(/[\\/]/).at(-1)!;
  const about = { name: data, hash: hashOf(records), records: records.length };
  const config: TrainingConfig = {
    ...{ method, base: await editorBase(model), data: about, validation: about, seed },
    hparams: { ...h, encoder: encoder.name },
    version: manifest.version,
  };
  const start = performance.now();
  const { editor, path } = await trainInFolder({
    ...{ config, roles: adaptedRoles(model), out: flags.out, resume, saveEvery },
    onReport: (report) => console.error(line(report)),
  }, async (going) => {
    if ("pairs" in h) {
      const { max_steps, encoder: _, layers: __, start, ...rest } = h;
      const from = start === undefined ? undefined : await findSerac(model, "serac", start);
      const options = { ...rest, steps: max_steps, seed, start: from, ...going };
      return await trainSeracEasyEdit(model, encoder, records, data, options);
    }
    return await trainSerac(model, encoder, records, data, {
      scope: { width: h.scope_width, steps: h.scope_steps, batch: h.scope_batch, lr: h.scope_lr },
      adapter: {
        ...{ rank: h.rank, steps: h.max_steps, batch: h.batch, lr: h.lr },
        ...{ val_interval: h.val_interval, patience: h.patience },
      },
      ...{ seed, ...going },
    });
  });
  const time = (performance.now() - start) / 1000;
  const curves = join(dirname(path), "curves.svg");
  await writeFileAtomic(curves, await drawCourses(coursesOf(editor), `${method} on ${data}, seed ${seed}`));
  const summary = {
    ...{ method, model: flags.model, adapter: session.gpu.description, hparams: h },
    ...{ training: editor.training, time_s: time, written: [path, curves] },
  };
  await writeFileAtomic(join(dirname(path), "summary.json"), JSON.stringify(summary, null, 2) + "\n");
  if (flags.json) return printJson(summary);
  console.log(
    `${records.length} facts, ${seconds(time)} in this run. Written: ${summary.written.join(", ")}`,
  );
  console.log(`Use it with --method ${method} --editor ${flags.out}`);
}

/** The courses of its parts; a mixture has one. */
function coursesOf({ training }: SeracEditor): PartCourse[] {
  const named = { "scope classifier": training.scope, "counterfactual model": training.adapter };
  const parts = training.scope ? named : { "mixture": training };
  return Object.entries(parts).map(([name, course]) => ({ name, ...course as Course }));
}

/** The maps that a counterfactual model adapts: all of all blocks. */
function adaptedRoles({ weights }: LoadedModel): string[] {
  return [...weights.keys()].filter((role) => role.startsWith("layer."));
}

function hashOf(records: readonly SeracRecord[]): string {
  return createHash("sha256").update(JSON.stringify(records)).digest("hex");
}

function line({ part, done, total, loss, validation, left }: SeracReport): string {
  const told = { loss, validation };
  const losses = Object.entries(told).map(([name, x]) => x === undefined ? "" : `  ${name} ${x.toFixed(4)}`);
  return `${part} ${done} of ${total}${losses.join("")}  ${seconds(left)} left`;
}
