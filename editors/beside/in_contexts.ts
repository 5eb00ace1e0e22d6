/** Edits' prompts behind texts that the model makes up, so that what is trained does not depend on one wording. */
import type { LoadedModel } from "../../engine/models/load.ts";
import { type ContextLengths, contexts } from "../contexts.ts";
import type { Example } from "../finetune/train.ts";
import { type EditRequest, fill } from "../requests.ts";

/**
 * Each request's prompt bare and then behind every context, with the target.
 * @param examples the requests' own ids
 */
export async function inContexts(
  model: LoadedModel,
  requests: readonly EditRequest[],
  examples: readonly Example[],
  lengths: ContextLengths,
  seed: number,
): Promise<Example[][]> {
  const before = await contexts(model, lengths, seed, "words");
  return requests.map(({ prompt, subject }, i) =>
    before.map((context) => ({
      prompt: context ? model.tokenizer.encode(context + fill(prompt, subject).text) : examples[i].prompt,
      target: examples[i].target,
    }))
  );
}
