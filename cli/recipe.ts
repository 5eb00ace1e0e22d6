/** `emend recipe suggest`: an edit layer for a model without a recipe, with its evidence. */
import { Command } from "npm:commander@15.1.0";
import { checkWritable, writeFileAtomic } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import { readDataset, sampleCases } from "../evaluation/datasets/read.ts";
import { calibrate } from "../evaluation/calibrate.ts";
import { stopwatch } from "../evaluation/stopwatch.ts";
import {
  type LayerEffect,
  type LayerScore,
  type SuggestedRecipe,
  suggestRecipe,
} from "../evaluation/suggest.ts";
import { number } from "./inputs.ts";
import { openSession } from "./model.ts";
import { percent, printJson, progress, seconds, table } from "./terminal.ts";

const HELP = `
A sweep edits ten facts at up to eight layers and measures what the edits do; a trace looks for the layer whose
MLPs bring a fact back that noise has destroyed. The sweep is the better advice: where a fact is recalled says
little about where it is edited best (Hase et al. 2023). It edits without statistics (C = I), for a model
without a recipe has none of most layers.

The file is a list of one recipe, as those in editors/recipes.

Example:
  deno run -A cli.ts recipe suggest --model M --out recipe.json`;

const CALIBRATE = `
Thresholds are distances between activations, which differ from model to model. GRACE's and MELO's radius is the
distance within which the share --rate of prompts about other facts lies; WISE's margins are shares of the median length
of what the layer says.

Example:
  deno run -A cli.ts recipe calibrate --model atlas --method grace --dataset atlas/data/train.json`;

interface CalibrateFlags {
  model: string;
  method: string;
  dataset: string;
  records: string;
  rate: string;
  layer?: string;
  out?: string;
  json?: boolean;
}

interface Flags {
  model: string;
  by: string;
  dataset: string;
  facts: string;
  layers?: string;
  out?: string;
  json?: boolean;
}

export function recipeCommand(): Command {
  const suggest = new Command("suggest")
    .description("Propose an edit layer for a model, with the evidence")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .option("--by <what>", "sweep or trace", "sweep")
    .option("--dataset <file>", "facts to try with: atlas, or any data set that eval reads", "atlas")
    .option("--facts <n>", "how many; those that the model knows come first", "10")
    .option("--layers <list>", "candidates of a sweep: 3,5,8")
    .option("--out <file>", "write the recipe as JSON")
    .option("--json", "print the recipe as JSON")
    .addHelpText("after", HELP)
    .action((flags: Flags) => runSuggest(flags));
  const calibrate = new Command("calibrate")
    .description("Measure on a model what thresholds of GRACE, WISE and MELO mean there")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .requiredOption("--method <name>", "grace, wise or melo")
    .requiredOption(
      "--dataset <file>",
      "facts with rephrases, not those of a later evaluation; any layout of eval",
    )
    .option("--records <n>", "how many", "500")
    .option("--rate <share>", "of prompts about other facts that a GRACE key may take", "0.001")
    .option("--layer <n>", "the layer; default the recipe's")
    .option("--out <file>", "write the recipe as JSON")
    .option("--json", "print the recipe as JSON")
    .addHelpText("after", CALIBRATE)
    .action((flags: CalibrateFlags) => runCalibrate(flags));
  return new Command("recipe").description("Recipes: hyper-parameters for a model")
    .addCommand(suggest.exitOverride()).addCommand(calibrate.exitOverride());
}

async function runSuggest(flags: Flags): Promise<void> {
  const { by, out } = flags;
  if (by !== "sweep" && by !== "trace") throw new InputError(`--by wants sweep or trace, got "${by}"`);
  if (by === "trace" && flags.layers) {
    throw new InputError("--layers goes with --by sweep: a trace sees all layers");
  }
  const facts = number("--facts", flags.facts, 1, 200, true);
  if (out !== undefined) await checkWritable(out);
  const cases = sampleCases(await readDataset(flags.dataset), { seed: 0 });
  using session = await openSession(flags.model);
  const { model } = session;
  const layers = flags.layers?.split(",").map((layer) =>
    number("--layers", layer, 0, model.dims.layers - 1, true)
  );
  const clock = stopwatch();
  let recipe: SuggestedRecipe;
  {
    using bar = progress(by === "sweep" ? "Trying layers" : "Tracing");
    recipe = await suggestRecipe(model, flags.model.split("/").at(-1)!, {
      ...{ by, cases, facts, layers },
      onProgress: (done, total) => bar.update(Math.round(1000 * done), 1000 * total),
    });
  }
  if (out !== undefined) await writeFileAtomic(out, `${JSON.stringify([recipe], null, 2)}\n`);
  if (flags.json) return printJson(recipe);
  const { evidence, hparams } = recipe;
  console.log(`${evidence.facts} facts, ${evidence.known} of them known to the model; ${seconds(clock())}\n`);
  console.log(evidenceTable(evidence));
  console.log(`\nsuggested: layer ${(hparams.layers as number[])[0]} of 0 to ${model.dims.layers - 1}`);
  console.log(`try it: --set layers=${JSON.stringify(hparams.layers)}`);
  if (out !== undefined) console.log(`written: ${out}`);
}

async function runCalibrate(flags: CalibrateFlags): Promise<void> {
  const { method, out } = flags;
  if (method !== "grace" && method !== "wise" && method !== "melo") {
    throw new InputError(`--method wants grace, wise or melo, got "${method}"`);
  }
  const records = number("--records", flags.records, 2, 10000, true);
  const rate = number("--rate", flags.rate, 1e-6, 0.5);
  if (out !== undefined) await checkWritable(out);
  const cases = sampleCases(await readDataset(flags.dataset), { seed: 0 }).slice(0, records);
  using session = await openSession(flags.model);
  const { model } = session;
  const layer = flags.layer === undefined
    ? undefined
    : number("--layer", flags.layer, 0, model.dims.layers - 1, true);
  const name = { model: flags.model.split("/").at(-1)!, dataset: flags.dataset.split("/").at(-1)! };
  const { recipe, table: rows } = await calibrate(model, method, cases, { layer, rate, ...name });
  if (out !== undefined) await writeFileAtomic(out, `${JSON.stringify([recipe], null, 2)}\n`);
  if (flags.json) return printJson(recipe);
  console.log(`${recipe.source}\n\n${table(rows)}\n\n${JSON.stringify(recipe.hparams)}`);
  if (out !== undefined) console.log(`written: ${out}`);
}

function evidenceTable({ by, layers }: SuggestedRecipe["evidence"]): string {
  if (by === "sweep") {
    return table([
      ["layer", "score", "ES", "PS", "NS", "magnitude"],
      ...(layers as LayerScore[]).map(({ layer, score, ES, PS, NS, magnitude }) => [
        String(layer),
        ...[score, ES, PS, NS].map((x) => (100 * x).toFixed(1)),
        magnitude.toFixed(3),
      ]),
    ]);
  }
  return table([
    ["layer", "effect of its MLPs at the last subject token"],
    ...(layers as LayerEffect[]).map(({ layer, effect, ci95 }) => [
      String(layer),
      `${percent(effect)} ± ${percent(ci95)}`,
    ]),
  ]);
}
