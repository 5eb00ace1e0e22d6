/** Log-probabilities the plain way: one full forward a sequence, log-softmax on the host in f64. */
import type { Continuation } from "../../evaluation/scoring.ts";
import type { Model } from "../../engine/models/model.ts";
import { logitsOf } from "../patches/_models.ts";

/** log softmax of one row of logits. */
export function logSoftmax(row: Float32Array): Float64Array {
  const top = row.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (const z of row) sum += Math.exp(z - top);
  return Float64Array.from(row, (z) => z - top - Math.log(sum));
}

/** Log-probabilities of all tokens at each place of the target. */
export async function logProbsPlainly(
  model: Model,
  { prompt, target }: Continuation,
): Promise<Float64Array[]> {
  const { vocab } = model.dims;
  const all = await logitsOf(model, [[...prompt, ...target]]);
  return target.map((_, t) => {
    const at = prompt.length + t - 1;
    return logSoftmax(all.subarray(at * vocab, (at + 1) * vocab));
  });
}

/** Log-probability of each target token. */
export async function scorePlainly(model: Model, item: Continuation): Promise<number[]> {
  const all = await logProbsPlainly(model, item);
  return item.target.map((id, t) => all[t][id]);
}

/** Mean log-probability of a text's continuation, with byte-level tokens. */
export async function meanPlainly(model: Model, prompt: string, continuation: string): Promise<number> {
  const item = {
    prompt: model.tokenizer.encode(prompt),
    target: model.tokenizer.encode(` ${continuation}`),
  };
  const scores = await scorePlainly(model, item);
  return scores.reduce((a, b) => a + b) / scores.length;
}
