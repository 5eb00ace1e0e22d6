/**
 * MEMIT with many edits of CounterFact, ours and PyTorch's, in turn in one go on the same token ids: the peer does
 * what the authors' code does (targets one edit after another, every step a full forward over all contexts; full
 * forwards for the keys of every layer; see memit_torch.py), we do the exact savings of the guide's section 14.
 * Contexts and hyper-parameters are those of our recipe on both sides; C is made up, the same for both.
 *
 *   deno run -A bench/peers/memit.ts --gguf FILE --data counterfact.json --python PYTHON
 *     [--edits 100] [--sample 100] [--parts 4] [--peer-layers 5] [--threads 2] [--json]
 *
 * We always make all edits. `--sample` of them, spread evenly, are optimised by the peer: a target's cost there
 * is proportional to its steps and its padded places, both of which are known for every edit, so the whole is
 * the sample's seconds times the places of all edits over those of the sample. `--peer-layers` of the layers are
 * updated by the peer, which cost it the same each. What was measured and what is computed from it is printed.
 * Targets go part by part, ours and the peer's in turn. Loading, compiling and contexts are outside the clocks.
 */
import process from "node:process";
import { Command } from "npm:commander@15.1.0";
import { CONTEXT_START } from "../../editors/closed_form.ts";
import type { MemitHparams } from "../../editors/closed_form_hparams.ts";
import { contextGroups, contexts } from "../../editors/contexts.ts";
import { MEMIT } from "../../editors/memit.ts";
import { methodNamed } from "../../editors/methods.ts";
import { type EditRequest, validateRequest } from "../../editors/requests.ts";
import { romeTarget } from "../../editors/rome.ts";
import { editTokenised } from "../../editors/spread.ts";
import { type LayerStatistics, statisticsOf } from "../../editors/statistics.ts";
import { optimiseTargets, type Target, type TargetRequest } from "../../editors/targets.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import { Peer } from "./peer.ts";

const flags = new Command()
  .requiredOption("--gguf <file>")
  .requiredOption("--data <file>", "records in CounterFact's layout")
  .option("--python <command>", "", "python3")
  .option("--edits <n>", "", "100")
  .option("--sample <n>", "edits whose targets the peer optimises", Infinity.toString())
  .option("--parts <n>", "", "4")
  .option("--peer-layers <n>", "layers that the peer updates", Infinity.toString())
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

/** C of every layer is RHO^|i−j|. */
const RHO = 0.5;

/** Seconds by the clock, and of the processors over their number: what an idle machine would need. */
interface Time {
  wall: number;
  busy: number;
}

interface PeerTarget {
  seconds: number;
  cpu_seconds: number;
  losses: [loss: number, nll: number, kl: number, wd: number][];
  places: number;
  norm: number;
}

interface PeerLayer {
  seconds: number;
  cpu_seconds: number;
  phases: Record<"keys" | "current" | "solve", number>;
  norm: number;
  row: number[];
}

const threads = Number(flags.threads);
const timeOf = (of: { seconds: number; cpu_seconds: number }): Time => ({
  wall: of.seconds,
  busy: of.cpu_seconds / threads,
});
const plus = (a: Time, b: Time): Time => ({ wall: a.wall + b.wall, busy: a.busy + b.busy });
const times = (a: Time, n: number): Time => ({ wall: a.wall * n, busy: a.busy * n });
const NONE: Time = { wall: 0, busy: 0 };

async function timed<T>(work: () => Promise<T>): Promise<{ made: T; time: Time }> {
  const start = performance.now(), before = process.cpuUsage();
  const made = await work();
  const { user, system } = process.cpuUsage(before);
  const busy = (user + system) / 1e6 / threads;
  return { made, time: { wall: (performance.now() - start) / 1e3, busy } };
}

/** The first records with subjects of their own. */
async function requestsOf(path: string, count: number): Promise<EditRequest[]> {
  const made = new Map<string, EditRequest>();
  for (
    const { requested_rewrite: { prompt, subject, target_new } } of JSON.parse(await Deno.readTextFile(path))
  ) {
    if (!made.has(subject)) made.set(subject, validateRequest({ prompt, subject, target: target_new.str }));
    if (made.size === count) return [...made.values()];
  }
  throw new Error(`${path} has fewer than ${count} records with different subjects`);
}

function madeUp(layer: number, width: number): LayerStatistics {
  const lower = new Float32Array(width * (width + 1) / 2);
  for (let i = 0, at = 0; i < width; i++) for (let j = 0; j <= i; j++) lower[at++] = RHO ** (i - j);
  const origin = { modelHash: "", corpusHash: "", corpusName: "", tokens: 1, documents: 1, maxLength: 1 };
  return { origin: { ...origin, layer, width, complete: true }, lower };
}

const forPeer = ({ prompts, target, kl }: TargetRequest) => ({
  contexts: prompts.map(({ ids }) => ids),
  subject_last: prompts.map(({ subjectLast }) => subjectLast),
  target,
  kl: { ids: kl.ids, subject_last: kl.subjectLast },
});

/** Places of a step of the peer, padding among them. */
function placesOf({ prompts, target, kl }: TargetRequest): number {
  const longest = Math.max(kl.ids.length, ...prompts.map(({ ids }) => ids.length + target.length - 1));
  return (prompts.length + 1) * longest;
}

using gpu = await Gpu.open();
const loading = await timed(() => loadModel(gpu, flags.gguf));
using model = loading.made;
const method = methodNamed("memit");
const recipe = method.recipe(model);
const parsed = method.parse(recipe.hparams, recipe.source).hparams as MemitHparams;
// The peer adds no jitter to C.
const hparams = { ...parsed, mom2_jitter: 0 };
const { layers, context_template_length_params: lengths } = hparams;
const requests = await requestsOf(flags.data, Number(flags.edits));
const texts = await contexts(model, lengths, 0, CONTEXT_START);
const wanted = requests.map((request) => romeTarget(model, request, texts));
const how = { ...hparams, layer: layers.at(-1)!, reference: "block" as const };
const peer = new Peer(flags.python, "memit_torch.py", ["--gguf", flags.gguf, "--threads", flags.threads]);
const { torch, load: peerLoad } = await peer.read<{ torch: string; load: number }>();
const ask = <T>(task: Record<string, unknown>) => peer.ask<T>({ hparams: how, ...task });

// Warm-up: compiles the kernels, and the peer's first pass.
const perPart = Math.ceil(wanted.length / Number(flags.parts));
await optimiseTargets(model, wanted.slice(0, perPart), { ...how, v_num_grad_steps: 1 });
await ask({ task: "target", edit: forPeer(wanted[0]), hparams: { ...how, v_num_grad_steps: 2 } });

const every = Math.max(1, wanted.length / Number(flags.sample));
const sampled = new Set(
  Array.from({ length: Math.floor(wanted.length / every) }, (_, i) => Math.floor((i + 0.5) * every)),
);
const targets: Target[] = [];
const peers: (PeerTarget & { edit: number })[] = [];
let oursTargets = NONE;
for (let first = 0; first < wanted.length; first += perPart) {
  const part = wanted.slice(first, first + perPart);
  const { made, time } = await timed(() => optimiseTargets(model, part, how));
  oursTargets = plus(oursTargets, time);
  targets.push(...made);
  for (let edit = first; edit < first + part.length; edit++) {
    if (!sampled.has(edit)) continue;
    peers.push({ edit, ...await ask<PeerTarget>({ task: "target", edit: forPeer(wanted[edit]) }) });
  }
}

using statistics = statisticsOf(gpu, layers.map((layer) => madeUp(layer, model.dims.inner)));
const rest = await timed(() =>
  editTokenised(
    model,
    { wanted, subjects: wanted.map((_, i) => [i]), groups: contextGroups(lengths) },
    MEMIT,
    { hparams, statistics, targets: { targets: () => Promise.resolve(targets), taken: () => 0 } },
  )
);
const zs = targets.map(({ v0, delta }) => Array.from(v0, (v, d) => v + delta[d]));
const peerLayers: PeerLayer[] = [];
// Each on the unedited model: the costs are the same, and the first layer's update is the one to compare.
for (const [i, layer] of layers.slice(0, Number(flags.peerLayers)).entries()) {
  const task = { task: "layer", edits: wanted.map(forPeer), zs, layer, left: layers.length - i, rho: RHO };
  peerLayers.push(await ask<PeerLayer>(task));
}
await peer.close();

/** Steps times places of the peer: what its seconds are proportional to. */
const work = (edit: number) => targets[edit].losses.length * placesOf(wanted[edit]);
const workOf = (edits: readonly number[]) => edits.reduce((sum, edit) => sum + work(edit), 0);
const sampleTime = peers.map(timeOf).reduce(plus, NONE);
const share = workOf(wanted.map((_, i) => i)) / workOf(peers.map(({ edit }) => edit));
const peerTargets = times(sampleTime, share);
const layerTime = peerLayers.map(timeOf).reduce(plus, NONE);
const peerRest = times(layerTime, layers.length / peerLayers.length);
const lossDifferences = peers.flatMap(({ edit, losses }) =>
  losses.map(([loss], step) => {
    const mine = targets[edit].losses[step];
    return mine ? Math.abs(mine.nll + mine.kl + mine.wd - loss) : Infinity;
  })
);
const update = rest.made.deltas[0];
const row = peerLayers[0].row.map((_, j) => {
  const { left, right, rank } = update;
  let sum = 0;
  for (let r = 0; r < rank; r++) sum += left[r] * right[j * rank + r];
  return sum;
});
const firstRow = Math.hypot(...row.map((v, j) => v - peerLayers[0].row[j])) /
  Math.hypot(...peerLayers[0].row);
const faster = (theirs: Time, ours: Time) => ({
  wall: theirs.wall / ours.wall,
  busy: theirs.busy / ours.busy,
});
const result = {
  date: new Date().toISOString().slice(0, 10),
  adapter: gpu.description,
  torch,
  ...{ edits: wanted.length, layers, hparams },
  steps: {
    mean: targets.reduce((n, t) => n + t.losses.length, 0) / targets.length,
    most: Math.max(...targets.map((t) => t.losses.length)),
  },
  measured: {
    ours: { load: loading.time, targets: oursTargets, keys_and_solve: rest.time },
    peer: {
      load: peerLoad,
      targets_run: peers.length,
      targets: sampleTime,
      layers_run: peerLayers.length,
      layers: layerTime,
    },
  },
  peer_each: peers.map(({ edit, places, losses, ...p }) => ({
    ...{ edit, places, steps: losses.length, ...timeOf(p) },
    busy_ms_a_place_and_step: 1e3 * timeOf(p).busy / places / losses.length,
  })),
  peer_layer_s: peerLayers.map(({ phases }) => phases),
  whole: {
    ours: plus(oursTargets, rest.time),
    peer: plus(peerTargets, peerRest),
    peer_targets: peerTargets,
    peer_keys_and_solve: peerRest,
  },
  faster: {
    whole: faster(plus(peerTargets, peerRest), plus(oursTargets, rest.time)),
    targets: faster(peerTargets, oursTargets),
    keys_and_solve: faster(peerRest, rest.time),
  },
  largest_loss_difference: Math.max(...lossDifferences),
  first_row_of_first_update_difference: firstRow,
  load: Deno.loadavg()[0],
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else report();

function report(): void {
  const { measured, whole, faster } = result;
  const s = ({ wall, busy }: Time) =>
    `${wall.toFixed(1).padStart(8)} s wall ${busy.toFixed(1).padStart(8)} s busy`;
  console.log(
    `${wanted.length} edits, layers ${
      layers.join(", ")
    }, ${flags.gguf}, ${gpu.description}, PyTorch ${torch}`,
  );
  console.log(`steps: ${result.steps.mean.toFixed(1)} on average, ${result.steps.most} at most`);
  console.log(`measured  ours    targets of ${wanted.length} edits   ${s(measured.ours.targets)}`);
  console.log(`measured  ours    keys and solves        ${s(measured.ours.keys_and_solve)}`);
  console.log(`measured  peer    targets of ${peers.length} edits   ${s(measured.peer.targets)}`);
  console.log(`measured  peer    ${peerLayers.length} layer(s)             ${s(measured.peer.layers)}`);
  console.log(`measured  loading: ours ${loading.time.wall.toFixed(1)} s, peer ${peerLoad.toFixed(1)} s`);
  const each = result.peer_each.map((p) => p.busy_ms_a_place_and_step.toFixed(2));
  console.log(`measured  peer    busy ms a place and step, edit by edit: ${each.join(" ")}`);
  const known = (all: boolean) => all ? "measured" : "computed";
  console.log(
    `${known(peers.length === wanted.length)}  peer    targets of all edits   ${s(whole.peer_targets)}`,
  );
  console.log(
    `${known(peerLayers.length === layers.length)}  peer    all layers             ${
      s(whole.peer_keys_and_solve)
    }`,
  );
  for (const [what, { wall, busy }] of Object.entries(faster)) {
    console.log(`${wall.toFixed(1)} times as fast (busy ${busy.toFixed(1)}): ${what}`);
  }
  console.log(
    `losses differ by ${
      result.largest_loss_difference.toExponential(1)
    }, the first row of the first update by ` +
      `${firstRow.toExponential(1)} of its norm; load ${result.load.toFixed(1)}`,
  );
}
