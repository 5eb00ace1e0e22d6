/** Their tensors under our names, for both of KE's fixtures. */
import { ok } from "node:assert/strict";
import { relativeError } from "../../engine/models/_fixtures.ts";

/** The bound, on a whole tensor relative to its norm. */
const TOLERANCE = 1e-4;

export function close(name: string, got: ArrayLike<number>, want: ArrayLike<number>) {
  const error = relativeError(got, want);
  ok(error <= TOLERANCE, `${name} is off by ${error.toExponential(2)} relative`);
}

/**
 * A learner's tensors, or their gradients. Their LSTM has two biases where one does, with the same gradient.
 * @param maps by our role, their name of the map
 */
export function ours(
  tensors: ReadonlyMap<string, Float32Array>,
  prefix: string,
  maps: ReadonlyMap<string, string>,
  gradient = false,
): Map<string, Float32Array> {
  const of = (name: string) => tensors.get(`${prefix}.${name}`)!;
  const linear = of("condition.linear.layer.weight"), bias = of("condition.linear.layer.bias");
  const width = linear.length / bias.length / 2;
  const half = (at: number) =>
    Float32Array.from(
      { length: bias.length * width },
      (_, i) => linear[Math.floor(i / width) * 2 * width + at * width + i % width],
    );
  const all = new Map<string, Float32Array>([["condition.forward.bias", bias]]);
  for (const [i, [name, suffix]] of [["forward", ""], ["backward", "_reverse"]].entries()) {
    const lstm = (part: string) => of(`condition.lstm.module.${part}_l0${suffix}`);
    const other = lstm("bias_hh");
    all.set(`lstm.${name}.ih`, lstm("weight_ih"));
    all.set(`lstm.${name}.hh`, lstm("weight_hh"));
    all.set(`lstm.${name}.ih.bias`, lstm("bias_ih").map((b, k) => gradient ? b : b + other[k]));
    all.set(`condition.${name}`, half(i));
  }
  for (const [role, theirs] of maps) {
    for (const [i, at] of [0, 2].entries()) {
      const head = `conditioners.${theirs}_weight_conditioner.conditioners.${at}`;
      all.set(`${role}.${i}.v`, of(`${head}.weight_v`));
      all.set(`${role}.${i}.g`, of(`${head}.weight_g`));
      all.set(`${role}.${i}.bias`, of(`${head}.bias`));
    }
  }
  return all;
}
