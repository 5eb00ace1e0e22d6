/** `emend train`: trains an editor (MEND and its relatives) for a model. */
import { Command } from "npm:commander@15.1.0";
import manifest from "../deno.json" with { type: "json" };
import { writeFileAtomic } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import { editorBase } from "../editors/hypernetworks/file.ts";
import { EDITOR_KINDS, type EditorKind, editorKind, parseTraining } from "../editors/hypernetworks/kinds.ts";
import { trainingRecipe } from "../editors/hypernetworks/recipes.ts";
import { atlasSources } from "../training/atlas.ts";
import type { Quality } from "../editors/hypernetworks/validate.ts";
import { drawCurves } from "../training/curves.ts";
import { checkTrainingFolder, type TrainingConfig } from "../training/folder.ts";
import { fileSource, fileSources } from "../training/records.ts";
import type { ExampleSource } from "../training/source.ts";
import { trainEditor, type TrainingReport } from "../training/train.ts";
import { collect, number, parseSettings, readHparams } from "./inputs.ts";
import { openSession } from "./model.ts";
import { printJson, seconds } from "./terminal.ts";
import { recordOptions } from "./train_records.ts";
import { runTrainSerac, SERAC_METHODS, seracSettings } from "./train_serac.ts";

interface Flags {
  model: string;
  method: string;
  dataset: string;
  validation?: string;
  skipIncomplete?: boolean;
  without: string[];
  hparams?: string;
  set: string[];
  steps?: string;
  seed: string;
  out: string;
  resume?: boolean;
  saveEvery: string;
  json?: boolean;
}

const EXAMPLE = `
Hyper-parameters (--set), with the authors' values where a model has no recipe of its own:
${
  [
    ...EDITOR_KINDS.map((name) => `${name}: ${settingsOf(name)}`),
    ...SERAC_METHODS.map((name) => `${name}: ${seracSettings(name)}`),
  ].map(folded).join("\n")
}

The folder gets config.json, editor.safetensors (the best so far by the loss of the validation),
training.safetensors (what --resume goes on from, to the same bytes as without the interruption), and at the end
summary.json and curves.svg. Training ends at the last step, or when no validation was better for a while.

Example:
  deno run -A cli.ts train --model atlas --method mend --dataset atlas --steps 200 --out mend-atlas
  deno run -A cli.ts edit --model atlas --method mend --editor mend-atlas \\
    --prompt "The first language of {} is" --subject "Danielle Darrieux" --target English`;

function settingsOf(name: string): string {
  const { schema } = editorKind(name);
  const defaults = schema.parse({}) as Record<string, unknown>;
  return Object.keys(schema.shape).map((key) => key in defaults ? `${key}=${defaults[key]}` : key).join(" ");
}

/** A list in lines of 100 characters at most. */
function folded(text: string): string {
  return `  ${text}`.replace(/(.{1,96})(?: |$)/g, "$1\n    ").trimEnd();
}

export function trainCommand(): Command {
  return new Command("train")
    .description("Train an editor that makes edits from gradients")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .requiredOption(
      "--method <name>",
      `the editor to train: ${[...EDITOR_KINDS, ...SERAC_METHODS].join(", ")}`,
    )
    .requiredOption(
      "--dataset <file>",
      "records with loc and alt: zsRE (MEND) or CounterFact; or atlas, its own facts",
    )
    .requiredOption("--out <dir>", "where the training and its editor go")
    .option("--validation <file>", "records to validate with; default every 12th of the dataset")
    .option(
      "--skip-incomplete",
      "leave records out that lack what training needs, instead of refusing their file",
    )
    .option(
      "--without <dataset>",
      "leave out the records about what this dataset edits; may be repeated",
      collect,
      [],
    )
    .option("--hparams <file>", "hyper-parameters: JSON or YAML")
    .option("--set <key=value>", "one hyper-parameter; may be repeated", collect, [])
    .option("--steps <n>", "steps at most; the same as --set max_steps")
    .option("--seed <n>", "seed of the network and of the order of examples", "0")
    .option("--resume", "go on with the training that is in the folder")
    .option("--save-every <n>", "steps between two saved states", "50")
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLE)
    .action((flags: Flags) => runTrain(flags));
}

async function runTrain(flags: Flags): Promise<void> {
  const serac = SERAC_METHODS.find((name) => name === flags.method.toLowerCase());
  if (serac) return await runTrainSerac(serac, flags);
  const kind = editorKind(flags.method);
  const seed = number("--seed", flags.seed, 0, 2 ** 32 - 1, true);
  const saveEvery = number("--save-every", flags.saveEvery, 1, 1e9, true);
  const steps = flags.steps === undefined ? undefined : number("--steps", flags.steps, 1, 1e9, true);
  const given = { ...flags.hparams ? await readHparams(flags.hparams) : {}, ...parseSettings(flags.set) };
  await checkTrainingFolder(flags.out, flags.resume ?? false);
  const { train, validation } = await sourcesOf(flags);

  using session = await openSession(flags.model);
  const { model } = session;
  const note = (text: string) => console.error(text);
  const { hparams, source } = hparamsOf(
    kind,
    model,
    { ...given, ...steps ? { max_steps: steps } : {} },
    flags,
    note,
  );
  const about = ({ name, hash, count }: ExampleSource) => ({ name, hash, records: count });
  const config: TrainingConfig = {
    method: kind.name,
    base: await editorBase(model),
    data: about(train),
    validation: about(validation),
    seed,
    hparams: { ...hparams },
    version: manifest.version,
  };
  note(`${source}. ${train.count} records to train with, ${validation.count} to validate with.`);
  const start = performance.now();
  const result = await trainEditor(model, {
    ...{ kind, hparams, config, train, validation, saveEvery },
    ...{ out: flags.out, resume: flags.resume ?? false },
    onReport: (report) => note(line(report)),
  });
  const time = (performance.now() - start) / 1000;
  const { state, final, ended, roles, parameters, editor } = result;
  const curves = editor.replace(/editor\.safetensors$/, "curves.svg");
  await writeFileAtomic(curves, await drawCurves(state, `${kind.name} on ${train.name}, seed ${seed}`));
  const summary = {
    method: kind.name,
    model: flags.model,
    adapter: session.gpu.description,
    hparams,
    roles,
    parameters,
    steps: state.step,
    examples: state.step * hparams.accumulate_bs * hparams.n_edits,
    ended,
    best: state.best,
    validation: final,
    time_s: time,
    written: [editor, curves],
  };
  await writeFileAtomic(
    curves.replace(/curves\.svg$/, "summary.json"),
    JSON.stringify(summary, null, 2) + "\n",
  );
  if (flags.json) return printJson(summary);
  console.log(
    `${state.step} steps (${ended}), ${seconds(time)} in this run; the editor of step ${
      state.best!.step
    } on ` +
      `${final.examples} edits never trained on:\n  ${shares(final)}\nWritten: ${summary.written.join(", ")}`,
  );
}

async function sourcesOf(
  flags: Flags,
): Promise<{ train: ExampleSource; validation: ExampleSource }> {
  const { dataset, validation } = flags;
  const options = await recordOptions(flags);
  if (dataset === "atlas") {
    const own = await atlasSources();
    return validation === undefined ? own : { ...own, validation: await fileSource(validation, options) };
  }
  if (validation === undefined) return await fileSources(dataset, options);
  return { train: await fileSource(dataset, options), validation: await fileSource(validation, options) };
}

function hparamsOf(
  kind: EditorKind,
  model: Parameters<typeof trainingRecipe>[1],
  given: Record<string, unknown>,
  flags: Flags,
  note: (text: string) => void,
) {
  const recipe = trainingRecipe(kind.name, model);
  const where = flags.hparams ?? "The training's settings";
  const { hparams, unknown } = parseTraining(kind, { ...recipe.hparams, ...given }, where);
  if (unknown.length) {
    if (!flags.hparams) {
      throw new InputError(`${kind.name} has no hyper-parameter "${unknown[0]}" in training`);
    }
    for (const key of unknown) {
      note(`note: ${flags.hparams} has a key "${key}" that ${kind.name} does not know`);
    }
  }
  return { hparams, source: recipe.source };
}

function line({ step, steps, edit, loc, alpha, margin, validation, left }: TrainingReport): string {
  const bound = alpha === undefined ? "" : `, α ${alpha.toPrecision(3)}, margin ${margin!.toPrecision(3)}`;
  const quality = validation ? `  validation: ${shares(validation)}` : "";
  return `step ${step} of ${steps}  loss: edit ${loss(edit)}, locality ${loss(loc)}${bound}${quality}  ` +
    `${seconds(left)} left`;
}

/** A divergence of nothing may be a rounding below 0. */
function loss(value: number): string {
  return Math.max(0, value).toFixed(4);
}

function shares({ edit, paraphrase, locality }: Quality): string {
  const whole = (share: number) => `${Math.round(100 * share)} %`;
  return `edit ${whole(edit)}, paraphrase ${whole(paraphrase)}, locality ${whole(locality)}`;
}
