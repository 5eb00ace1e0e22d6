/**
 * UltraEdit (Gu et al. 2026, arXiv 2505.14679; guide section 9): no subject, no optimised vector. One backward pass
 * says at every token what each edited map is given, h, and in which direction its output should go, g; both are
 * normalised by what all tokens of all edits so far were like, and one least squares a map writes them:
 *
 *   (ĥ, ĝ) = ((h, g) − mean)/std      v = −lr·‖ĥ‖²·ĝ
 *   ΔWᵀ = (HᵀH + I)⁻¹ HᵀV = Hᵀ (HHᵀ + I)⁻¹ V          H, V the tokens of one turn, H as it is
 *
 * The right-hand side is a system of tokens × tokens, whatever the width. Means and deviations are of a shape of
 * maps, not of a map, and go on through a sequence of edits.
 */
import { z } from "npm:zod@4.6.7";
import ultraEditRecipes from "./recipes/ultraedit.json" with { type: "json" };
import { InputError } from "../engine/io/errors.ts";
import { gramSolve, gramSolveOn, type LowRank } from "../engine/linalg/gram.ts";
import { type Model, weight } from "../engine/models/model.ts";
import type { Edit, WeightDelta } from "./edit.ts";
import type { Example } from "./finetune/train.ts";
import { parseHparams, requireKeys, requireLayers } from "./hparams.ts";
import { factorsOrDense } from "./host_weight.ts";
import { type MapGradients, mapGradients, type TokenChoice } from "./map_gradients.ts";
import type { MemoryPart } from "./memory.ts";
import { MANY } from "./memit.ts";
import type { Method } from "./methods.ts";
import { publishedRecipe, type Recipe, type RecipeFile } from "./recipes.ts";
import { type EditRequest, requireConsistent, tokeniseRequest, validateRequest } from "./requests.ts";
import type { EditOptions } from "./rome.ts";
import { mapNamed } from "./ultraedit/names.ts";
import { type Normaliser, normaliserFrom } from "./ultraedit/normaliser.ts";

/** Hyper-parameters under the names of the authors' files; EasyEdit calls the first `inner_params`. */
export const ultraEditSchema = z.object({
  /** Maps to edit, by role (`layer.29.mlp.down`) or by module (`model.layers.29.mlp.down_proj`). */
  edit_modules: z.array(z.string()).min(1),
  /** Multiplies the normalised gradients. */
  lr: z.number().positive().default(1e-6),
  /** Tokens that are written: those that predict the target, as the authors have it, or all, as EasyEdit has it. */
  token: z.enum(["ans", "mask"]).default("ans"),
  /** Edits a forward and backward pass; the loss is their mean, and the statistics are merged one pass at a time. */
  batch_size: z.number().int().min(1).default(10),
});

export type UltraEditHparams = z.infer<typeof ultraEditSchema> & {
  /** Of the edited maps. */
  layers: number[];
};

/** Edits all requests at once: one turn. The model is left as it was. */
async function ultraEdit(
  model: Model,
  requests: readonly EditRequest[],
  { hparams, memory, onProgress }: EditOptions<UltraEditHparams>,
): Promise<Edit> {
  requireLayers(model, hparams.layers);
  const valid = requests.map((r, i) =>
    validateRequest(r, requests.length > 1 ? `Request ${i + 1}` : undefined)
  );
  requireConsistent(valid);
  const examples = valid.map((request) => {
    const { prompt: { ids }, target } = tokeniseRequest(model, request);
    return { prompt: ids, target };
  });
  const { deltas, memory: part, losses } = await editTurn(model, examples, hparams, memory?.parts);
  onProgress?.(valid.length, valid.length);
  return {
    method: "ultraedit",
    hparams: { ...hparams },
    requests: valid,
    deltas,
    outcomes: losses.map((nll) => ({ steps: 1, losses: [{ nll, kl: 0, wd: 0 }], warnings: [] })),
    memory: part,
  };
}

/** One turn on token ids: a delta a map, the statistics after it, and each example's loss before it. */
export async function editTurn(
  model: Model,
  examples: readonly Example[],
  { edit_modules, lr, token, batch_size }: UltraEditHparams,
  before: readonly MemoryPart[] = [],
): Promise<{ deltas: WeightDelta[]; memory: MemoryPart; losses: number[] }> {
  const roles = edit_modules.map((name) => mapNamed(model, name));
  const normalisers = new Map<string, Normaliser>();
  const normaliserOf = (role: string) => {
    const map = weight(model, role);
    const name = `normaliser.${map.in}x${map.out}`;
    const known = normalisers.get(name) ?? normaliserFrom(before, name, map.in + map.out);
    normalisers.set(name, known);
    return known;
  };
  const turn = new Map(roles.map((role) => [role, [] as MapGradients[]]));
  const losses: number[] = [];
  for (const batch of microBatches(examples, batch_size)) {
    const found = await mapGradients(model, batch.map((i) => examples[i]), roles, token);
    batch.forEach((i, at) => losses[i] = found.losses[at]);
    for (const role of roles) {
      const seen = found.maps.get(role)!;
      turn.get(role)!.push(seen);
      normaliserOf(role).update(together(seen, weight(model, role).in));
    }
  }
  const deltas: WeightDelta[] = [];
  for (const role of roles) {
    const map = weight(model, role);
    const seen = turn.get(role)!;
    const H = joined(seen.map(({ inputs }) => inputs));
    const V = joined(seen.map((some) => pseudoValues(some, map.in, normaliserOf(role), lr)));
    requireMovement(V, token);
    deltas.push(await written(model, role, H, V));
  }
  return { deltas, memory: new Map([...normalisers].flatMap(([name, n]) => n.parts(name))), losses };
}

/** Indices of so many examples together, the longest first, as the authors' loader has them. */
function microBatches(examples: readonly Example[], size: number): number[][] {
  const length = ({ prompt, target }: Example) => prompt.length + target.length;
  const order = [...examples.keys()].sort((a, b) => length(examples[b]) - length(examples[a]));
  return Array.from(
    { length: Math.ceil(order.length / size) },
    (_, i) => order.slice(i * size, (i + 1) * size),
  );
}

/** All numbers, one part after another. */
function joined(parts: readonly (Float32Array | Float64Array)[]): Float64Array {
  const all = new Float64Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** (h, g) of every token, [T, in + out]. */
function together({ inputs, gradients }: MapGradients, width: number): Float64Array {
  const rows = inputs.length / width, out = gradients.length / rows;
  const all = new Float64Array(inputs.length + gradients.length);
  for (let r = 0; r < rows; r++) {
    all.set(inputs.subarray(r * width, (r + 1) * width), r * (width + out));
    all.set(gradients.subarray(r * out, (r + 1) * out), r * (width + out) + width);
  }
  return all;
}

/** v = −lr·‖ĥ‖²·ĝ of every token, [T, out]. */
function pseudoValues(seen: MapGradients, width: number, normaliser: Normaliser, lr: number): Float64Array {
  const rows = seen.inputs.length / width, out = seen.gradients.length / rows;
  const hat = normaliser.normalise(together(seen, width));
  const values = new Float64Array(rows * out);
  for (let r = 0; r < rows; r++) {
    const row = hat.subarray(r * (width + out), (r + 1) * (width + out));
    let square = 0;
    for (let i = 0; i < width; i++) square += row[i] ** 2;
    for (let o = 0; o < out; o++) values[r * out + o] = -lr * square * row[width + o];
  }
  return values;
}

/** One token alone lies on its own mean: nothing would be written. */
function requireMovement(values: Float64Array, token: TokenChoice): void {
  if (values.some((v) => v !== 0)) return;
  throw new InputError("UltraEdit has nothing to tell a single token from: its normalised gradient is 0", {
    hint: token === "ans"
      ? "Edit several facts at once, or take all tokens with --set token=mask"
      : undefined,
  });
}

/** ΔW = Vᵀ (HHᵀ + I)⁻¹ H, as its factors where they are fewer numbers than the matrix. */
async function written(model: Model, role: string, H: Float64Array, V: Float64Array): Promise<WeightDelta> {
  const { in: width, out } = weight(model, role);
  const n = H.length / width;
  const problem = { n, keys: H, mKeys: H, residuals: V, lambda: 1 };
  const solved: LowRank = n < MANY ? gramSolve(problem) : await gramSolveOn(model.gpu, problem);
  const side = (columns: Float64Array, rows: number) =>
    Float32Array.from({ length: rows * n }, (_, at) => columns[at % n * rows + Math.floor(at / n)]);
  const [left, right] = [side(solved.left, out), side(solved.right, width)];
  return factorsOrDense(model, { role, rank: n, left, right, shared: true });
}

/** The published recipe, else the output projections before the last layer, as for Mistral. */
function recipe({ config }: Pick<Model, "config">): Recipe {
  const found = publishedRecipe(ultraEditRecipes as RecipeFile[], config);
  if (found) return found;
  const layers = [config.layers - 3, config.layers - 2].map((layer) => Math.max(0, layer));
  const edit_modules = [...new Set(layers)].map((layer) => `layer.${layer}.mlp.down`);
  return {
    hparams: { edit_modules },
    source:
      `No recipe for this model: ${edit_modules.join(" and ")}, as for Mistral-7B; raise lr where edits ` +
      "do not take",
    known: false,
  };
}

/** Many facts at once, turn after turn, by one backward pass each. */
export const ultraedit: Method<UltraEditHparams> = {
  name: "ultraedit",
  summary: "UltraEdit (Gu et al. 2026): one backward pass and one least squares; for very long sequences",
  recipe,
  parse(values, source) {
    const { inner_params, ...rest } = values;
    // A file's `inner_params` stand beside the recipe's modules, and are what the user wants.
    const named = inner_params === undefined ? rest : { ...rest, edit_modules: inner_params };
    const { hparams, unknown } = parseHparams(ultraEditSchema, named, source);
    const layers = hparams.edit_modules.map((name) => Number(/\.(\d+)\./.exec(name)?.[1] ?? 0));
    return { hparams: { ...hparams, layers: [...new Set(layers)].sort((a, b) => a - b) }, unknown };
  },
  requireKeys: (keys) =>
    requireKeys("ultraedit", ultraEditSchema, keys.filter((key) => key !== "inner_params")),
  statistics: () => [],
  prepare: () => Promise.resolve(),
  plan(model, requests, { layers }) {
    const targets = requests.map((request) => {
      const { prompt, target } = tokeniseRequest(model, validateRequest(request));
      // All rows go through all layers, once.
      return { prompts: [{ ...prompt, subjectLast: 0 }], target, kl: { ...prompt, subjectLast: 0 } };
    });
    return { layer: Math.min(...layers), steps: 1, targets };
  },
  run: ultraEdit,
};
