/** Another model over the same vocabulary that answers in a model's place: SERAC's smaller sibling. */
import { join } from "node:path";
import { cacheFolder } from "../../engine/io/cache.ts";
import { openCheckpoint } from "../../engine/io/checkpoint.ts";
import { InputError } from "../../engine/io/errors.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import type { Model } from "../../engine/models/model.ts";

/** Which model it is, for files: its folder's or file's name and the hash of its weights. */
export interface SiblingName {
  name: string;
  hash: string;
}

/** Where siblings were found, by their hashes. */
const FOUND = new Map<string, string>();

/** Names the model in a folder or file. @throws {InputError} when it cannot be read */
export async function siblingAt(path: string): Promise<SiblingName> {
  const checkpoint = await openCheckpoint(path);
  const hash = await checkpoint.hash().finally(() => checkpoint.close());
  FOUND.set(hash, path);
  return { name: path.replaceAll("\\", "/").replace(/\/+$/, "").split("/").at(-1)!, hash };
}

/**
 * Loads a sibling onto a model's device, from where it was found or from the cache's models.
 * @throws {InputError} when it is not there, is another model, or has another vocabulary
 */
export async function loadSibling(model: Model, { name, hash }: SiblingName): Promise<LoadedModel> {
  const path = FOUND.get(hash) ?? join(cacheFolder(), "models", name);
  const sibling = await loadModel(model.gpu, path, { owner: "counterfactual" });
  try {
    if (await sibling.checkpoint.hash() !== hash) {
      throw new InputError(`The memory was made with another counterfactual model than ${path}`);
    }
    const [own, other] = [model.tokenizer, sibling.tokenizer];
    const same = own.vocabSize === other.vocabSize &&
      Array.from({ length: own.vocabSize }, (_, id) => id).every((id) => own.token(id) === other.token(id));
    if (same && model.dims.vocab === sibling.dims.vocab) return sibling;
    throw new InputError(`${path} has another vocabulary than ${model.name}: it cannot answer in its place`);
  } catch (error) {
    sibling[Symbol.dispose]();
    throw error;
  }
}
