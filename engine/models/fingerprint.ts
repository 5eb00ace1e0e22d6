/**
 * The fingerprint of a model's weights as they stand on the device. Equal weights have equal fingerprints, so
 * it proves that an edit was taken back exactly, for a small part of what reading the weights would cost.
 */
import { createHash } from "node:crypto";
import type { Ctx } from "../ops/context.ts";
import { checksum } from "../ops/checksum.ts";
import { fill } from "../ops/elementwise.ts";
import { createTensor, freeTensor, type Tensor } from "../tensor/tensor.ts";
import { readTensors } from "../tensor/transfer.ts";
import type { Model } from "./model.ts";

/**
 * SHA-256 in hex over the name, dtype, shape and 64-bit checksum of every tensor: matrices, biases, tables,
 * norms, the factors of the overlays that lie on the weights, and the parts beside them. Row shards make no difference. One changed
 * bit always shows; by chance a larger change goes unseen with a probability of 2⁻⁶⁴.
 */
export async function fingerprint(model: Model): Promise<string> {
  const { gpu } = model;
  const parts = [...partsOf(model)].sort(([a], [b]) => a < b ? -1 : 1);
  const sums = createTensor(gpu, "checksums", [parts.length, 2], { dtype: "u32" });
  try {
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    fill(ctx, sums, 0);
    parts.forEach(([, t], slot) => checksum(ctx, t, sums, slot));
    using plan = ctx.r.finish("fingerprint");
    plan.run();
    const [values] = await readTensors(gpu, sums);
    const sha = createHash("sha256");
    parts.forEach(([name, { dtype, shape }], i) => {
      sha.update(JSON.stringify([name, dtype, shape, values[2 * i], values[2 * i + 1]]) + "\n");
    });
    return sha.digest("hex");
  } finally {
    freeTensor(gpu, sums);
  }
}

/** Every tensor once, by name; a tied head is the table of embeddings. */
function* partsOf({ tensors, weights, parts }: Model): Generator<[name: string, t: Tensor]> {
  yield* tensors;
  const tables = new Set(tensors.values());
  for (const { role, matrix, bias, overlays } of weights.values()) {
    if (!tables.has(matrix)) yield [role, matrix];
    if (bias) yield [`${role}.bias`, bias];
    for (const [i, { left, right }] of overlays.entries()) {
      yield [`${role}.overlays.${i}.left`, left];
      yield [`${role}.overlays.${i}.right`, right];
    }
  }
  for (const [i, part] of parts.entries()) {
    for (const [name, t] of part.tensors) yield [`parts.${i}.${[...part.at.keys()]}.${name}`, t];
  }
}
