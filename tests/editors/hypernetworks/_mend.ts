/** What the tests of MEND share: the authors' numbers, and edits as groups. */
import { networkTensors, readNumbers } from "../../../editors/hypernetworks/learner.ts";
import { lastLayers, mlpMaps } from "../../../editors/hypernetworks/maps.ts";
import { mendNetwork, type MendShape } from "../../../editors/hypernetworks/mend_network.ts";
import type { Hypernetwork, Numbers } from "../../../editors/hypernetworks/network.ts";
import type { EditGroup } from "../../../editors/hypernetworks/step.ts";
import { type LoadedModel, loadModel } from "../../../engine/models/load.ts";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { modelFolder, NO_TOKENIZER } from "../../patches/_models.ts";
import { fixtures, tensorsOf } from "../_fixtures.ts";

type Ids = [prompt: number[], target: number[]];

/** A fixture of tools/fixtures/mend.py. */
export interface MendSpec {
  model: string;
  layers: number[];
  rank: number;
  edit_lr: number;
  lr: number;
  clip: number;
  examples: { edit: Ids; outer: Ids; loc: Ids }[];
  losses: { edit: number; loc: number; norm: number }[];
  /** The shape of the maps that the network alone was tried on. */
  group: string;
}

/** Tiny models with MEND fixtures. */
export const MODELS = ["gpt2-tiny", "llama-tiny"];

export async function mendFixture(
  name: string,
): Promise<{ spec: MendSpec; tensors: Map<string, Float32Array>; groups: EditGroup[] }> {
  const spec: MendSpec = JSON.parse(await Deno.readTextFile(`${fixtures}mend/${name}.json`));
  const tensors = await tensorsOf(`${fixtures}mend/${name}.safetensors`);
  const continuation = ([prompt, target]: Ids) => ({ prompt, target });
  const groups = spec.examples.map(({ edit, outer, loc }): EditGroup => [
    { edit: continuation(edit), outer: continuation(outer), loc: continuation(loc) },
  ]);
  return { spec, tensors, groups };
}

/** The fixture's numbers under a prefix as a network's, the statistics too where they are asked for. */
export function numbersOf(
  tensors: ReadonlyMap<string, Float32Array>,
  prefix: string,
  statistics: boolean,
): Numbers {
  const numbers = new Map<string, Float32Array | Uint32Array>();
  for (const [name, values] of tensors) {
    if (name.startsWith(prefix)) numbers.set(name.slice(prefix.length), values);
    if (!name.startsWith("stats.")) continue;
    const own = name.slice("stats.".length);
    const used = statistics ? values : new Float32Array(values.length);
    numbers.set(own, own.endsWith(".count") ? Uint32Array.from(used) : used);
  }
  return numbers;
}

/** A tiny model, and an untrained network for its last two layers that takes rows as they are. */
export async function untrained(
  gpu: Gpu,
  { name = "gpt2-tiny", ...shape }: Partial<MendShape> & { name?: string } = {},
): Promise<{ model: LoadedModel; network: Hypernetwork } & Disposable> {
  using owned = new DisposableStack();
  const model = owned.use(await loadModel(gpu, modelFolder(name), NO_TOKENIZER));
  const all = { roles: mlpMaps(model, lastLayers(model, 2)), rank: 6, editLr: 1e-3, ...shape };
  using fresh = mendNetwork(model, all);
  const network = owned.use(mendNetwork(model, all, await plain(model, fresh)));
  const kept = owned.move();
  return { model, network, [Symbol.dispose]: () => kept.dispose() };
}

/** A network's numbers with a normaliser that changes nothing: means of 0, deviations of 1. */
async function plain(model: LoadedModel, network: Hypernetwork): Promise<Numbers> {
  const numbers = await readNumbers(model, networkTensors(network));
  return new Map(
    [...numbers].map(([name, { values }]) => {
      if (!network.buffers.has(name)) return [name, values];
      if (name.endsWith(".count")) return [name, Uint32Array.of(2)];
      return [name, new Float32Array(values.length).fill(name.endsWith(".scatter") ? 1 : 0)];
    }),
  );
}
