/**
 * AlphaEdit (Fang et al. 2025, arXiv 2410.02355; guide section 8): MEMIT's targets and spread, written only into the
 * directions that ordinary text hardly uses, and beside the keys of earlier edits of a sequence.
 *
 *   P = the projector onto eigenvectors of C with eigenvalues below a threshold
 *   ΔW = R KᵀP (K_pK_pᵀP + KKᵀP + λI)⁻¹
 *      = [0, R] (λI + [K_p, K]ᵀP[K_p, K])⁻¹ (P[K_p, K])ᵀ
 */
import { InputError } from "../engine/io/errors.ts";
import { makeProjector } from "../engine/linalg/projector.ts";
import type { Model } from "../engine/models/model.ts";
import { copy } from "../engine/ops/elementwise.ts";
import { linear } from "../engine/ops/linear.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../engine/tensor/transfer.ts";
import type { AlphaEditHparams } from "./closed_form_hparams.ts";
import type { Projector } from "./factors.ts";
import { rememberedKeys, updateBesidePast } from "./past_keys.ts";
import type { Statistics } from "./statistics.ts";
import type { ClosedForm } from "./spread.ts";

/** AlphaEdit's update; its notes say what the projectors keep, and when edits fill it. */
export const ALPHAEDIT: ClosedForm<AlphaEditHparams> = {
  name: "alphaedit",
  site: "out",
  divisor: (left) => left,
  remembers: true,
  async update(problem) {
    const { model, layer, statistics, hparams: { nullspace_threshold: threshold, L2: lambda } } = problem;
    const projector = await projectorOf(statistics, layer, threshold);
    const update = await updateBesidePast(problem, {
      name: `P below ${threshold}, λ = ${lambda}`,
      lambda,
      times: (keys, count) => project(model, projector, keys, count),
    });
    const { rank, n } = projector;
    const notes = [
      `Layer ${layer}: P keeps ${rank} of ${n} dimensions (eigenvalues of C below ${threshold})`,
    ];
    if (2 * (rememberedKeys(problem.memory, layer) + problem.n) > rank) {
      notes.push(
        `Layer ${layer}: the keys of the edits so far fill more than half of what P keeps, and more will push ` +
          `earlier edits out. Raise nullspace_threshold`,
      );
    }
    return { ...update, notes };
  },
};

const KNOWN = new WeakMap<Statistics, Map<string, Promise<Projector>>>();

/** @throws {InputError} when the projector keeps nothing, naming the least eigenvalues */
async function projectorOf(statistics: Statistics, layer: number, threshold: number): Promise<Projector> {
  const known = KNOWN.get(statistics) ?? new Map<string, Promise<Projector>>();
  KNOWN.set(statistics, known);
  const name = `${layer} ${threshold}`;
  const made = known.get(name) ?? statistics.projector(layer, threshold, makeProjector);
  known.set(name, made);
  const projector = await made;
  if (projector.rank > 0) return projector;
  throw new InputError(
    `No eigenvalue of C of layer ${layer} is below ${threshold}: the least is ${
      projector.near[0].toPrecision(3)
    }`,
    { hint: "Raise nullspace_threshold" },
  );
}

/** P K for keys one after another, in f32 on the device: P is well conditioned (guide, section 13.8). */
async function project(
  { gpu }: Model,
  { n, lower }: Projector,
  keys: Float64Array,
  count: number,
): Promise<Float64Array> {
  const P = new Float32Array(n * n);
  for (let i = 0, at = 0; i < n; i++) {
    for (let j = 0; j <= i; j++, at++) P[i * n + j] = P[j * n + i] = lower[at];
  }
  using scratch = new DisposableStack();
  const own = <T extends ReturnType<typeof createTensor>>(t: T) => scratch.adopt(t, () => freeTensor(gpu, t));
  const matrix = own(fromHost(gpu, "projector", [n, n], P));
  const x = own(fromHost(gpu, "keys", [count, n], Float32Array.from(keys)));
  const y = own(createTensor(gpu, "projected keys", [count, n]));
  const ctx = { gpu, r: gpu.recorder() };
  const symmetric = { role: "P", name: "P", matrix, layout: "out_in" as const, out: n, in: n, overlays: [] };
  copy(ctx, linear(ctx, x, symmetric), y);
  using plan = ctx.r.finish("project keys");
  plan.run();
  return Float64Array.from(await readF32(gpu, y));
}
