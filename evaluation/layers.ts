/**
 * The edits of a sequential run on one model: all changes of a weight lie on it as one (sum.ts), so a thousand
 * edits cost one product, and a run that goes on after a kill computes the same bits. What stands
 * beside the weights is one addition of each kind and place; prompts in front lie on it edit by edit, and make one
 * memory there.
 */
import { applyDeltas, type Edit, type WeightDelta } from "../editors/edit.ts";
import { applyPrompts } from "../editors/prompts/apply.ts";
import type { PromptEdit } from "../editors/prompts/edit.ts";
import { type Addition, groupOf, joinAdditions } from "../engine/models/additions/addition.ts";
import { layAdditions } from "../engine/models/additions/lay.ts";
import type { Model } from "../engine/models/model.ts";
import { addUp } from "./sum.ts";

/** Edits in order, applied together. */
export class EditLayers implements Disposable {
  readonly #model: Model;
  readonly #roles = new Map<string, WeightDelta>();
  readonly #additions: Addition[] = [];
  readonly #prompts: PromptEdit[] = [];
  #applied: Disposable | undefined;

  constructor(model: Model) {
    this.#model = model;
  }

  /** Lays an edit on top of those that are there. */
  async add(
    { deltas, additions = [], prompts }: Pick<Edit, "deltas" | "additions" | "prompts">,
  ): Promise<void> {
    for (const addition of additions) {
      const at = this.#additions.findIndex((other) => groupOf(other) === groupOf(addition));
      if (at < 0) this.#additions.push(addition);
      else this.#additions[at] = joinAdditions([this.#additions[at], addition]);
    }
    if (prompts) this.#prompts.push(prompts);
    for (const delta of deltas) {
      this.#roles.set(delta.role, await addUp(this.#model, this.#roles.get(delta.role), delta));
    }
    this.#apply();
  }

  /** Runs `body` on the unedited model. */
  async without<T>(body: () => Promise<T>): Promise<T> {
    this.#applied?.[Symbol.dispose]();
    try {
      return await body();
    } finally {
      this.#applied = undefined;
      this.#apply();
    }
  }

  #apply(): void {
    this.#applied?.[Symbol.dispose]();
    using applied = new DisposableStack();
    applied.use(applyDeltas(this.#model, [...this.#roles.values()]));
    applied.use(layAdditions(this.#model, this.#additions));
    for (const prompts of this.#prompts) applied.use(applyPrompts(this.#model, prompts));
    this.#applied = applied.move();
  }

  [Symbol.dispose](): void {
    this.#applied?.[Symbol.dispose]();
    this.#applied = undefined;
    this.#roles.clear();
    this.#additions.length = 0;
    this.#prompts.length = 0;
  }
}
