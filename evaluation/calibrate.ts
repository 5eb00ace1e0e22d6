/**
 * Thresholds of GRACE, MELO and WISE for a model. They are distances between activations, which differ from model to
 * model (guide section 15.1), so they are measured on records that no evaluation uses:
 *
 *   GRACE  ε: the distance from a fact's key within which the share `rate` of prompts about other facts lies
 *   MELO   init_radius: the same, between outputs of the look-up's map
 *   WISE   (α, β, γ) = (¼, 1, ½) of the median ‖φ(o)‖ of the map's outputs, in the proportions 5 : 20 : 10 that
 *          the authors have for LLaMA-2
 */
import { distance } from "../editors/grace.ts";
import { mapRows } from "../editors/beside/map_rows.ts";
import { besideRecipe } from "../editors/beside/recipes.ts";
import { fill } from "../editors/requests.ts";
import type { RecipeFile } from "../editors/recipes.ts";
import { InputError } from "../engine/io/errors.ts";
import { activationOf, type Model } from "../engine/models/model.ts";
import { activation } from "../engine/ops/activation.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { copy } from "../engine/ops/elementwise.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../engine/tensor/transfer.ts";
import type { EditCase } from "./cases.ts";
import { matchOf } from "./suggest.ts";

/** What to measure. */
export interface CalibrateOptions {
  /** Default: the recipe's. */
  layer?: number;
  /** GRACE: share of prompts about other facts within ε. */
  rate: number;
  /** For the recipe's source. */
  model: string;
  dataset: string;
}

/** Rates of the table beside the one that is asked for. */
const RATES = [0.0001, 0.001, 0.01, 0.05];

/**
 * Measures a method's thresholds.
 * @returns the recipe, and what was found, as a table for people
 * @throws {InputError} when there are no two facts with rephrases
 */
export async function calibrate(
  model: Model,
  method: "grace" | "wise" | "melo",
  cases: readonly EditCase[],
  options: CalibrateOptions,
): Promise<{ recipe: RecipeFile; table: string[][] }> {
  const known = besideRecipe(model.config, method).hparams;
  const layer = options.layer ??
    (method === "melo" ? known.grace_layer as number : (known.layers as number[])[0]);
  const facts = cases.flatMap(({ requests: [{ prompt, subject }], probes }) => {
    const rephrases = probes.filter(({ kind }) => kind === "paraphrase").map((probe) => probe.prompt);
    return rephrases.length ? [[fill(prompt, subject).text, ...rephrases]] : [];
  });
  if (facts.length < 2) {
    throw new InputError(`${options.dataset} has no two facts with rephrases to measure distances with`);
  }
  const texts = facts.flat().map((text) => model.tokenizer.encode(text));
  const role = `layer.${layer}.mlp.${method === "melo" ? "up" : "down"}`;
  const rows = await mapRows(model, role, texts.map((ids) => ({ ids, positions: [ids.length - 1] })));
  const measured = method === "grace"
    ? radius(facts, rows.inputs, options.rate, "eps")
    : method === "melo"
    ? radius(facts, rows.outputs, options.rate, "init_radius")
    : margins(await activated(model, rows.outputs));
  const recipe: RecipeFile = {
    match: matchOf(model.config),
    model: options.model,
    source: `emend recipe calibrate, ${facts.length} records of ${options.dataset}: ${measured.rule}`,
    hparams: {
      ...known,
      ...method === "melo" ? { grace_layer: layer } : { layers: [layer] },
      ...measured.hparams,
    },
  };
  return { recipe, table: measured.table };
}

/** φ of rows, φ the model's activation. */
async function activated(model: Model, rows: readonly Float32Array[]): Promise<Float32Array[]> {
  const { gpu } = model;
  const [{ length: width }] = rows;
  const x = fromHost(gpu, "outputs", [rows.length, width], rows.flatMap((row) => [...row]));
  const kept = createTensor(gpu, "activated outputs", x.shape);
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  copy(ctx, activation(ctx, x, activationOf(model)), kept);
  using plan = ctx.r.finish("activated outputs");
  plan.run();
  const values = await readF32(gpu, kept);
  [x, kept].forEach((t) => freeTensor(gpu, t));
  return rows.map((_, i) => values.slice(i * width, (i + 1) * width));
}

function margins(outputs: readonly Float32Array[]) {
  const lengths = outputs.map((o) => Math.hypot(...o)).sort((a, b) => a - b);
  const median = lengths[lengths.length >> 1];
  const share = (part: number) => Number((part * median).toPrecision(3));
  const [alpha, beta, gamma] = [share(0.25), share(1), share(0.5)];
  return {
    hparams: { act_margin: [alpha, beta, gamma] },
    rule: `act_margin is 1/4, 1 and 1/2 of the median length of the activated outputs, ${
      median.toPrecision(4)
    }`,
    table: [
      ["length of φ(o)", ""],
      ...[0.05, 0.5, 0.95].map((
        q,
      ) => [`${100 * q} %`, lengths[Math.floor(q * lengths.length)].toPrecision(4)]),
    ],
  };
}

function radius(facts: readonly string[][], keys: readonly Float32Array[], rate: number, name: string) {
  const firsts: number[] = [];
  facts.reduce((at, texts) => (firsts.push(at), at + texts.length), 0);
  const own: number[] = [], others: number[] = [];
  firsts.forEach((first, i) => {
    firsts.forEach((other, j) => {
      for (let k = 0; k < facts[j].length; k++) {
        if (i === j && k === 0) continue;
        (i === j ? own : others).push(distance(keys[first], keys[other + k]));
      }
    });
  });
  const sorted = Float64Array.from(others).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const within = (eps: number) => own.filter((d) => d <= eps).length / own.length;
  const eps = Number(at(rate).toPrecision(3));
  const percent = (x: number) => `${(100 * x).toPrecision(3)} %`;
  return {
    hparams: { [name]: eps },
    rule: `a share of ${rate} of prompts about other facts lies within ${name} ${eps}, and ${
      percent(within(eps))
    } of a fact's own rephrases`,
    table: [
      ["other facts' prompts within", name, "own rephrases within"],
      ...[...new Set([...RATES, rate])].sort((a, b) => a - b).map((share) => [
        percent(share),
        at(share).toPrecision(4),
        percent(within(at(share))),
      ]),
    ],
  };
}
