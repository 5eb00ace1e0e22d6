/**
 * Readings of the unedited model, kept in the user's cache: they are the same for every method. The key
 * holds the fingerprint of the weights they were taken from, so edited weights never find or become one.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import manifest from "../deno.json" with { type: "json" };
import { writeFileAtomic } from "../engine/io/atomic.ts";
import { cacheFolder } from "../engine/io/cache.ts";
import type { Model } from "../engine/models/model.ts";
import type { EditCase } from "./cases.ts";
import { readCases, type ReadingPlan } from "./readings.ts";
import type { Readings } from "./records.ts";

/** Counts the layouts that readings have had: those of an older one are taken anew. */
const LAYOUT = 2;

/** Cases that are read ahead together. */
const AHEAD = 8;

/** Runs something on the unedited model, whatever lies on it now. */
type Unedited = <T>(body: () => Promise<T>) => Promise<T>;

/** Takes readings of the unedited model, or finds them. */
export class Baselines {
  readonly #model: Model;
  readonly #cases: readonly EditCase[];
  readonly #plan: ReadingPlan;
  readonly #seed: number;
  readonly #about: unknown[];
  readonly #folder: string;
  readonly #ready = new Map<string, Readings>();

  /**
   * @param cases that will be asked for, mostly in this order
   * @param weights the fingerprint of the unedited weights
   */
  constructor(
    model: Model,
    cases: readonly EditCase[],
    options: { plan: ReadingPlan; seed: number; weights: string },
  ) {
    const { plan, seed, weights } = options;
    this.#model = model;
    this.#cases = cases;
    this.#plan = plan;
    this.#seed = seed;
    this.#about = [manifest.version, LAYOUT, model.gpu.description, weights, plan.generate, plan.texts, seed];
    this.#folder = join(cacheFolder(), "baselines", weights.slice(0, 16));
  }

  /** @param unedited takes edits off the model while `body` runs; asked for only where the cache has nothing */
  async read(one: EditCase, unedited: Unedited = (body) => body()): Promise<Readings> {
    if (!this.#ready.has(one.id)) await this.#readFrom(this.#cases.indexOf(one), unedited);
    const readings = this.#ready.get(one.id)!;
    this.#ready.delete(one.id);
    return readings;
  }

  /** Reads a case and those after it, but what the cache has. */
  async #readFrom(first: number, unedited: Unedited): Promise<void> {
    const missing: { one: EditCase; path: string }[] = [];
    for (const one of this.#cases.slice(first, first + AHEAD)) {
      const path = this.#path(one);
      const known = await Deno.readTextFile(path).then(JSON.parse).catch(() => undefined);
      if (known === undefined) missing.push({ one, path });
      else this.#ready.set(one.id, known);
    }
    if (missing.length === 0) return;
    const cases = missing.map(({ one }) => one);
    const readings = await unedited(() => readCases(this.#model, cases, this.#plan, this.#seed));
    for (const [i, { one, path }] of missing.entries()) {
      this.#ready.set(one.id, readings[i]);
      // Only a convenience: a full disk must not end a run.
      await writeFileAtomic(path, JSON.stringify(readings[i])).catch(() => {});
    }
  }

  #path({ requests, probes }: EditCase): string {
    const key = createHash("sha256").update(JSON.stringify([this.#about, requests, probes])).digest("hex");
    return join(this.#folder, `${key.slice(0, 32)}.json`);
  }
}
