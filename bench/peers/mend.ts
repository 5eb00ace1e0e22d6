/**
 * One MEND edit, ours and the authors' code in turn, in one go on the same token ids and the same network: gradients of
 * the last three layers' MLPs, the network, and the changed weights on the model. The network is untrained (an edit
 * costs the same) and of the released rank; its numbers go to the peer in a file. Loading and compiling are outside
 * the clocks. Prints seconds, the ratio, and how far the edit's loss and the norms of the changes agree.
 *
 *   deno run -A bench/peers/mend.ts --gguf FILE --mend DIR --python PYTHON [--rank 1920] [--repeat 5] [--json]
 */
import { Command } from "npm:commander@15.1.0";
import { join } from "node:path";
import { applyDeltas, type WeightDelta } from "../../editors/edit.ts";
import { writeEditor } from "../../editors/hypernetworks/file.ts";
import { networkTensors, readNumbers } from "../../editors/hypernetworks/learner.ts";
import { makeChanges } from "../../editors/hypernetworks/make.ts";
import { lastLayers, mlpMaps } from "../../editors/hypernetworks/maps.ts";
import { mendNetwork } from "../../editors/hypernetworks/mend_network.ts";
import { tokeniseRequest, validateRequest } from "../../editors/requests.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import { weight } from "../../engine/models/model.ts";
import { Peer } from "./peer.ts";
import { median, type PeerSeconds, peerTime, type Time, timed } from "./times.ts";

const flags = new Command()
  .requiredOption("--gguf <file>")
  .requiredOption("--mend <dir>", "a checkout of eric-mitchell/mend")
  .option("--python <command>", "", "python3")
  .option("--rank <n>", "", "1920")
  .option("--repeat <n>", "", "5")
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const threads = Number(flags.threads);
const request = validateRequest({
  prompt: "The mother tongue of {} is",
  subject: "Danielle Darrieux",
  target: "English",
});

using gpu = await Gpu.open();
using model = await loadModel(gpu, flags.gguf);
const roles = mlpMaps(model, lastLayers(model, 3));
// The authors bound no row.
const shape = { roles, rank: Number(flags.rank), editLr: 1e-4, limit: 3e38 };
// Means of 0 and deviations of 1: nothing was trained.
using fresh = mendNetwork(model, shape);
const numbers = new Map(
  [...await readNumbers(model, networkTensors(fresh))].map(([name, { shape, values }]) => {
    if (!fresh.buffers.has(name)) return [name, { shape, values }];
    if (name.endsWith(".count")) return [name, { shape, values: Uint32Array.of(2) }];
    return [name, { shape, values: new Float32Array(values.length).fill(name.endsWith(".scatter") ? 1 : 0) }];
  }),
);
using network = mendNetwork(model, shape, new Map([...numbers].map(([name, { values }]) => [name, values])));

const { prompt: { ids }, target } = tokeniseRequest(model, request);
const edit = async () => {
  const made = await makeChanges(model, network, [{ prompt: ids, target, group: 0 }]);
  using _on = applyDeltas(model, made.deltas);
  return made;
};

const folder = await Deno.makeTempDir();
const file = join(folder, "network.safetensors");
const head = { method: "mend", base: { hash: "", tokenizer: "", name: "" }, roles, shape: {}, training: {} };
await writeEditor(file, head, numbers);
const layers = lastLayers(model, 3).join(",");
const peer = new Peer(flags.python, "mend_torch.py", [
  ...["--gguf", flags.gguf, "--mend", flags.mend, "--network", file, "--layers", layers],
  ...["--rank", flags.rank, "--threads", flags.threads],
]);
const { torch } = await peer.read<{ torch: string }>();
const ask = () => peer.ask<PeerSeconds & { loss: number; norms: number[] }>({ prompt: ids, target });

await edit();
await ask();
const runs: Record<"ours" | "peer", Time[]> = { ours: [], peer: [] };
let difference = 0;
for (let r = 0; r < Number(flags.repeat); r++) {
  const { made, time } = await timed(threads, edit);
  const got = await ask();
  runs.ours.push(time);
  runs.peer.push(peerTime(got, threads));
  const pairs = [[made.losses[0], got.loss], ...made.deltas.map((delta, i) => [norm(delta), got.norms[i]])];
  difference = Math.max(...pairs.map(([a, b]) => Math.abs(a / b - 1)));
}
await peer.close();
await Deno.remove(folder, { recursive: true });

/** ‖ΔW‖ of a change in factors, by the Gram matrices of its sides. */
function norm({ role, rank, left, right, dense }: WeightDelta): number {
  if (dense) return Math.sqrt(dense.reduce((sum, x) => sum + x * x, 0));
  const { out, in: inner } = weight(model, role);
  const dot = (side: Float32Array, width: number, a: number, b: number) => {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += side[i * rank + a] * side[i * rank + b];
    return sum;
  };
  let square = 0;
  for (let a = 0; a < rank; a++) {
    for (let b = 0; b < rank; b++) square += dot(left, out, a, b) * dot(right, inner, a, b);
  }
  return Math.sqrt(square);
}

const [mine, theirs] = [median(runs.ours), median(runs.peer)];
const result = {
  ...{ date: new Date().toISOString().slice(0, 10), adapter: gpu.description, torch },
  ...{ rank: shape.rank, tokens: ids.length + target.length },
  seconds: { ours: mine, peer: theirs },
  ours_over_peer: { wall: mine.wall / theirs.wall, busy: mine.busy / theirs.busy },
  largest_difference: difference,
  load: Deno.loadavg()[0],
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const s = ({ wall, busy }: Time) =>
    `${(1e3 * wall).toFixed(0)} ms wall, ${(1e3 * busy).toFixed(0)} ms busy`;
  console.log(`MEND, rank ${result.rank}, ${result.tokens} tokens, ${gpu.description}, PyTorch ${torch}`);
  console.log(`ours      ${s(mine)} an edit`);
  console.log(`PyTorch   ${s(theirs)} an edit`);
  const { wall, busy } = result.ours_over_peer;
  console.log(
    `ours over PyTorch: ${wall.toFixed(2)} (busy ${busy.toFixed(2)}); losses and norms differ by ` +
      `${difference.toExponential(1)} at most; load ${result.load.toFixed(1)}`,
  );
}
