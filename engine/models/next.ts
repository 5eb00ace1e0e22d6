/** Logits of the token that comes next, by whoever answers a prompt. */
import { InputError } from "../io/errors.ts";
import type { Ctx } from "../ops/context.ts";
import { copy } from "../ops/elementwise.ts";
import { logits } from "../ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../tensor/tensor.ts";
import { readF32 } from "../tensor/transfer.ts";
import { finalNorm, forward, type Model, weight } from "./model.ts";
import { byRoute, isRouted, type Route, routesOf, unrouted } from "./route.ts";
import { packRows, selectRows, type Sequence } from "./rows.ts";

/** Rows that go through the model at once at most, unless one prompt alone has more. */
const MAX_ROWS = 1024;

/** A prompt and how it is answered. */
export interface Asked {
  route: Route;
  /** The prompt as it was asked, for the model's own part in a mixture. */
  prompt: readonly number[];
}

/**
 * Logits of the next token after each prompt, [vocab] each. Edits that route prompts are asked first.
 * @throws {InputError} when a prompt does not fit the context
 */
export async function nextLogits(
  model: Model,
  prompts: readonly (readonly number[])[],
): Promise<Float32Array[]> {
  const routes: Route[] = isRouted(model)
    ? await routesOf(model, prompts)
    : prompts.map((prompt) => ({ model, front: [], prompt }));
  return await logitsOf(model, routes.map((route, i) => ({ route, prompt: prompts[i] })));
}

/** The same where the routes are known. @throws {InputError} as {@link nextLogits} */
export async function logitsOf(model: Model, asked: readonly Asked[]): Promise<Float32Array[]> {
  const out = await byRoute(
    asked.map(({ route }) => route),
    (answers, at) => logitsBy(answers, at.map((i) => asked[i].route)),
  );
  const mixed = [...asked.keys()].filter((i) => asked[i].route.share !== undefined);
  if (mixed.length === 0) return out;
  const own = await logitsBy(unrouted(model), mixed.map((i) => ({ front: [], prompt: asked[i].prompt })));
  mixed.forEach((i, at) => out[i] = mixture(own[at], out[i], asked[i].route.share!));
  return out;
}

/** float32's epsilon, as SERAC's released code adds it. */
const EPS = 2 ** -23;

/** log((1 − s)·softmax(own) + s·softmax(other) + ε) */
export function mixture(own: Float32Array, other: Float32Array, share: number): Float32Array {
  const [p, q] = [own, other].map(probabilities);
  return p.map((x, v) => Math.log((1 - share) * x + share * q[v] + EPS));
}

function probabilities(z: Float32Array): Float32Array {
  const top = z.reduce((a, b) => Math.max(a, b), -Infinity);
  const e = z.map((x) => Math.exp(x - top));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

type Placed = Pick<Route, "front" | "prompt">;

async function logitsBy(model: Model, routes: readonly Placed[]): Promise<Float32Array[]> {
  const { maxPositions } = model.dims;
  const out: Float32Array[] = [];
  let batch: Placed[] = [], rows = 0;
  for (const route of routes) {
    const tokens = route.front.length + route.prompt.length;
    if (tokens > maxPositions) {
      throw new InputError(`A prompt has ${tokens} tokens; the model's context holds ${maxPositions}`);
    }
    if (batch.length > 0 && rows + route.prompt.length > MAX_ROWS) {
      out.push(...await logitsOfBatch(model, batch));
      [batch, rows] = [[], 0];
    }
    rows += route.prompt.length;
    batch.push(route);
  }
  if (batch.length > 0) out.push(...await logitsOfBatch(model, batch));
  return out;
}

async function logitsOfBatch(
  model: Model,
  routes: readonly Placed[],
): Promise<Float32Array[]> {
  const { gpu, dims } = model;
  const fronts = distinctLists(routes.map(({ front }) => front).filter(({ length }) => length > 0));
  const slots = new Map<string, number>();
  fronts.reduce((slot, ids) => (slots.set(ids.join(), slot), slot + ids.length), 0);
  const sequences: Sequence[] = [
    ...fronts.map((ids) => ({ ids })),
    ...routes.map(({ front, prompt }) => {
      const slot = slots.get(front.join()), count = front.length;
      return {
        ids: [...front, ...prompt],
        ...slot !== undefined && { from: count, prefix: { slot, count } },
      };
    }),
  ];
  const packing = { windows: dims.windows };
  using rows = packRows(gpu, sequences, packing);
  using select = selectRows(
    gpu,
    rows,
    routes.map(({ front, prompt }, i) => rows.rowOf(fronts.length + i, front.length + prompt.length - 1)),
    sequences,
    packing,
  );
  const kept = createTensor(gpu, "logits", [routes.length, dims.vocab]);
  try {
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const h = finalNorm(ctx, model, forward(ctx, model, rows, { select }));
    copy(ctx, logits(ctx, h, weight(model, "head")), kept);
    using plan = ctx.r.finish("next tokens");
    plan.run();
    const all = await readF32(gpu, kept);
    return routes.map((_, i) => all.subarray(i * dims.vocab, (i + 1) * dims.vocab));
  } finally {
    freeTensor(gpu, kept);
  }
}

/** Lists of ids, each once. */
export function distinctLists(lists: readonly (readonly number[])[]): (readonly number[])[] {
  return [...new Map(lists.map((ids) => [ids.join(), ids])).values()];
}
