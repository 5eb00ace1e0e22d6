/** A change with factors as one without: the plain product that tests compare with. */
import { denseDelta, type WeightDelta } from "../../editors/edit.ts";
import { type Model, weight } from "../../engine/models/model.ts";

/** left · rightᵀ in full, summed in f64, in stored order. */
export function merged(model: Model, { role, rank, left, right }: WeightDelta): WeightDelta {
  const { out, in: inner, layout } = weight(model, role);
  const values = new Float32Array(out * inner);
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < inner; i++) {
      let sum = 0;
      for (let r = 0; r < rank; r++) sum += left[o * rank + r] * right[i * rank + r];
      values[layout === "out_in" ? o * inner + i : i * out + o] = sum;
    }
  }
  return denseDelta(role, values);
}
