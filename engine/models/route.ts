/**
 * Who answers a prompt. Edits that leave a model's weights alone (IKE, SERAC) put text before what is asked, or
 * let another model over the same vocabulary answer, and both depend on the prompt. A router on a model decides
 * it, prompt by prompt; a prompt that no router claims goes the way it always went, to the same bits.
 */
import type { Model } from "./model.ts";

/** How one prompt is answered. */
export interface Route {
  /** Who reads: a model that is not routed itself, see {@link unrouted}. */
  readonly model: Model;
  /** Token ids that stand before the prompt. Routes with the same list share its keys and values. */
  readonly front: readonly number[];
  /** The prompt's own ids, as they follow the front. */
  readonly prompt: readonly number[];
  /**
   * Where both answer, `model` and the routed model itself: the share of `model` in the probabilities. Such
   * prompts are computed token by token, without a cache.
   */
  readonly share?: number;
}

/** Decides for each prompt (token ids) how it is answered; undefined where it does not care. */
export type Router = (prompts: readonly (readonly number[])[]) => Promise<(Route | undefined)[]>;

const ROUTERS = new WeakMap<Model, Router[]>();

/** Puts a router on a model; dispose the result to take exactly this one off again. */
export function addRouter(model: Model, router: Router): Disposable {
  const list = ROUTERS.get(model) ?? [];
  ROUTERS.set(model, list);
  list.push(router);
  return { [Symbol.dispose]: () => void list.splice(list.indexOf(router), 1) };
}

/** Is there a router on the model? */
export function isRouted(model: Model): boolean {
  return (ROUTERS.get(model)?.length ?? 0) > 0;
}

/** The same model without its routers: what answers behind them. */
export function unrouted(model: Model): Model {
  return Object.create(model);
}

/**
 * The routes of prompts: of several routers that claim one the last decides. A prompt that none claims goes to
 * the model as it is, with nothing before it.
 */
export async function routesOf(
  model: Model,
  prompts: readonly (readonly number[])[],
): Promise<(Route & { claimed: boolean })[]> {
  const claimed: (Route | undefined)[] = prompts.map(() => undefined);
  for (const router of ROUTERS.get(model) ?? []) {
    (await router(prompts)).forEach((route, i) => claimed[i] = route ?? claimed[i]);
  }
  const plain = unrouted(model);
  return claimed.map((route, i) =>
    route ? { ...route, claimed: true } : { model: plain, front: [], prompt: prompts[i], claimed: false }
  );
}

/**
 * Answers prompts group by group, each by the model that its route names.
 * @param answer gets the places of a group's prompts and their routes; returns one result a prompt
 */
export async function byRoute<T>(
  routes: readonly Route[],
  answer: (model: Model, at: readonly number[]) => Promise<readonly T[]>,
): Promise<T[]> {
  const out: T[] = [];
  for (const [model, at] of Map.groupBy(routes.keys(), (i) => routes[i].model)) {
    (await answer(model, at)).forEach((result, i) => out[at[i]] = result);
  }
  return out;
}
