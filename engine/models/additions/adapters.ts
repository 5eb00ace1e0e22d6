/**
 * Low-rank adapters that a look-up chooses (MELO; Yu et al. 2024): entries are places of edited prompts in the
 * output of one linear map, the look-up's, at the prompt's last token. They form clusters; a prompt within the radius
 * of the nearest cluster gets the adapter of its nearest member in that cluster, W x + b + B A x at each adapted
 * map of a later layer. Any other prompt keeps every bit.
 *
 * | tensor | shape | |
 * | --- | --- | --- |
 * | `keys` | [n, out of the look-up's map] | a member's place |
 * | `centers` | as keys | the centre of its cluster |
 * | `radius` | [n] | the radius of its cluster |
 * | `A.ROLE` | [n, rank, in] | for each adapted map |
 * | `B.ROLE` | [n, rank, out] | the scale in it |
 *
 * The settings are `roles`, the adapted maps, and `rank`; an entry says with `cluster` whose member it is.
 */
import { GpuError } from "../../gpu/errors.ts";
import { nearestInCluster, ownColumns } from "../../ops/clusters.ts";
import { type Ctx, temp } from "../../ops/context.ts";
import { addScaled, copy } from "../../ops/elementwise.ts";
import { linear, type Weight } from "../../ops/linear.ts";
import { chooseRows, distances, NO_ENTRY } from "../../ops/lookup.ts";
import { freeTensor, reshape, type Tensor } from "../../tensor/tensor.ts";
import { fromHost } from "../../tensor/transfer.ts";
import { type Model, weight } from "../model.ts";
import type { Applied, Beside, Part } from "../parts.ts";
import { type Addition, uploadEntries } from "./addition.ts";
import { decideOnce } from "./codebook.ts";

/** All rows of a text, as the bits of PromptRows.place. */
const ALL = 7;

/** The adapters on the device. @throws {GpuError} when an adapted map does not come after the look-up's */
export function adapters(model: Model, addition: Addition): Part {
  const { role, entries } = addition;
  const { roles, rank } = addition.settings as { roles: string[]; rank: number };
  const layer = layerOf(role);
  const early = roles.find((adapted) => layerOf(adapted) <= layer);
  if (early) throw new GpuError(`The adapter of ${early} is chosen at ${role}, which comes too late`);
  const { out } = weight(model, role);
  const shapes: Record<string, number[]> = { keys: [out], centers: [out], radius: [] };
  for (const adapted of roles) {
    const w = weight(model, adapted);
    Object.assign(shapes, { [`A.${adapted}`]: [rank, w.in], [`B.${adapted}`]: [rank, w.out] });
  }
  const { tensors, dispose } = uploadEntries(model, addition, shapes);
  const firsts = new Map<unknown, number>();
  entries.forEach(({ cluster }, i) => firsts.has(cluster) || firsts.set(cluster, i));
  const cluster = fromHost(
    model.gpu,
    `clusters of ${role}`,
    [entries.length],
    Uint32Array.from(entries, (entry) => firsts.get(entry.cluster)!),
    { owner: "overlays" },
  );
  const { keys, centers, radius } = tensors;
  const self = {};
  const lookup: Beside = (ctx, { y, residual, block: { rows, cache, notes } }) => {
    const prompts = rows.prompts();
    const choice = decideOnce(ctx, self, prompts, cache, (into) => {
      const o = bare(ctx, y, residual);
      const [toCenter, toKey] = [centers, keys].map((table) => distances(ctx, o, prompts.last, table));
      nearestInCluster(ctx, toCenter, toKey, { radius, cluster }, into);
    });
    notes.set(self, choice);
    return y;
  };
  const adapt = (adapted: string): Beside => {
    const w = weight(model, adapted);
    const n = entries.length * rank;
    const down = factor(`${adapted}.A`, reshape(tensors[`A.${adapted}`], [n, w.in]), "out_in", n, w.in);
    const up = factor(`${adapted}.B`, reshape(tensors[`B.${adapted}`], [n, w.out]), "in_out", w.out, n);
    return (ctx: Ctx, { x, y, block: { rows, notes } }: Applied) => {
      const choice = notes.get(self);
      if (!choice) throw new GpuError(`The adapter of ${adapted} did not see ${role}, which chooses it`);
      const { sequence, place } = rows.prompts();
      const inner = ownColumns(ctx, linear(ctx, x, down), choice, sequence, rank);
      const z = linear(ctx, inner, up, { residual: y });
      return chooseRows(ctx, y, z, { choice, sequence, place, places: ALL, which: NO_ENTRY });
    };
  };
  return {
    at: new Map([[role, lookup], ...roles.map((adapted): [string, Beside] => [adapted, adapt(adapted)])]),
    whole: [layer, ...roles.map(layerOf)],
    tensors: new Map(Object.entries(tensors)),
    [Symbol.dispose]() {
      freeTensor(model.gpu, cluster);
      dispose();
    },
  };
}

const layerOf = (role: string) => Number(role.split(".")[1]);

/** A map's output without the stream that was added to it. */
function bare(ctx: Ctx, y: Tensor, residual: Tensor | undefined): Tensor {
  if (!residual) return y;
  const o = temp(ctx, `${y.label} alone`, y.shape);
  copy({ ...ctx, tape: undefined }, y, o);
  addScaled(ctx, residual, o, -1, true);
  return o;
}

function factor(role: string, matrix: Tensor, layout: Weight["layout"], out: number, inner: number): Weight {
  return { role, name: role, matrix, layout, out, in: inner, overlays: [] };
}
