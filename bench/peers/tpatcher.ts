/**
 * One edit by T-Patcher, ours and PyTorch's in turn, in one go on the same token ids, the same memories and the same
 * v0: reading the mistakes, then as many steps, with the looks between them, on both sides. The peer does it in two
 * ways: as we do, with everything below the last layer read once and one copy of the example; and as the authors' code
 * does, eight copies through the whole model, of which `--full` steps are run and the rest computed from them. The
 * memory of ordinary text is made once a model and is outside the clocks, as are loading and compiling. Prints seconds,
 * ratios, and how far the losses agree.
 *
 *   deno run -A bench/peers/tpatcher.ts --gguf FILE --code DIR --python PYTHON [--steps 150] [--repeat 3] [--full 3]
 *     [--target TEXT] [--threads 2] [--json]
 */
import { Command } from "npm:commander@15.1.0";
import { join } from "node:path";
import { writeMemory } from "../../editors/memory.ts";
import { tokeniseRequest, validateRequest } from "../../editors/requests.ts";
import { tPatcher } from "../../editors/t_patcher.ts";
import { readMistakes } from "../../editors/tpatcher/mistakes.ts";
import { ordinaryQueries } from "../../editors/tpatcher/ordinary.ts";
import { joinRows, newPatches, normals } from "../../editors/tpatcher/patches.ts";
import { trainPatches } from "../../editors/tpatcher/train.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import { Peer } from "./peer.ts";
import { median, type PeerSeconds, peerTime, type Time, timed } from "./times.ts";

const flags = new Command()
  .requiredOption("--gguf <file>")
  .requiredOption("--code <dir>", "a checkout of ZeroYuHuang/Transformer-Patcher")
  .option("--python <command>", "", "python3")
  .option("--steps <n>", "", "150")
  .option("--repeat <n>", "", "3")
  .option("--full <n>", "steps that the peer runs as the authors' code does", "3")
  .option("--target <text>", "", "English")
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

/** As in the peer's script. */
const APART = 0.01;
const threads = Number(flags.threads), steps = Number(flags.steps), full = Number(flags.full);
const request = validateRequest({
  prompt: "The mother tongue of {} is",
  subject: "Danielle Darrieux",
  target: flags.target,
});

using gpu = await Gpu.open();
using model = await loadModel(gpu, flags.gguf);
const recipe = tPatcher.recipe(model).hparams;
// All runs take all steps: no look ends them.
const { hparams } = tPatcher.parse({ ...recipe, max_edit_step: steps, start_val: 2 * steps }, "the bench");
const { layers: [layer], activation, memory_size: size, check_val_every: every } = hparams;
const memory = await ordinaryQueries(model, { layer, size, seed: 0 });
const { prompt: { ids }, target } = tokeniseRequest(model, request);
const example = { prompt: ids, target };
const readOwn = () => readMistakes(model, layer, example, { activation, patches: [] });
const count = Math.min((await readOwn()).mistakes.length, hparams.max_add_neuron_num);
if (count === 0) throw new Error(`The model says "${flags.target}" already`);
const v0 = normals(count * model.dims.width, 0);
const ours = async () => {
  const read = await readOwn();
  const mistakes = read.mistakes.slice(0, count);
  const fresh = newPatches(mistakes.map((t) => read.queries[t]), v0, hparams.amplify_con);
  // New patches are equally active at their mistakes; apart, roundings do not decide which is the least.
  fresh.bias.forEach((_, i) => fresh.bias[i] = APART * i);
  return await trainPatches(model, example, { ...read, mistakes }, fresh, hparams, memory);
};

const folder = await Deno.makeTempDir();
const file = join(folder, "numbers.safetensors");
await writeMemory(
  file,
  new Map([
    ["train", joinRows(memory.train)],
    ["validate", joinRows(memory.validate)],
    ["v0", { rows: count, values: v0 }],
  ]),
);
const peer = new Peer(flags.python, "tpatcher_torch.py", [
  ...["--gguf", flags.gguf, "--code", flags.code, "--numbers", file, "--threads", flags.threads],
]);
const { torch } = await peer.read<{ torch: string }>();
const ask = (task: "cached" | "full", steps: number) =>
  peer.ask<PeerSeconds & { losses: number[][] }>({
    ...{ task, ...example, steps, every, hparams },
  });

await ours();
await ask("cached", every);
const runs: Record<"ours" | "cached" | "full", Time[]> = { ours: [], cached: [], full: [] };
let difference = 0;
for (let r = 0; r < Number(flags.repeat); r++) {
  const { made, time } = await timed(threads, ours);
  runs.ours.push(time);
  const cached = await ask("cached", steps);
  runs.cached.push(peerTime(cached, threads));
  const whole = await ask("full", full);
  const { wall, busy } = peerTime(whole, threads);
  runs.full.push({ wall: wall * steps / full, busy: busy * steps / full });
  for (const { losses } of [cached, whole]) {
    losses.forEach((terms, step) => {
      const { nll, kl, wd } = made.losses[step];
      [nll, kl, wd].forEach((x, i) => {
        difference = Math.max(difference, Math.abs(x - terms[i]) / Math.max(1, Math.abs(terms[i])));
      });
    });
  }
}
await peer.close();
await Deno.remove(folder, { recursive: true });

const [mine, cached, authors] = [median(runs.ours), median(runs.cached), median(runs.full)];
const over = (a: Time, b: Time) => ({ wall: a.wall / b.wall, busy: a.busy / b.busy });
const result = {
  ...{ date: new Date().toISOString().slice(0, 10), adapter: gpu.description, torch },
  ...{ patches: count, tokens: target.length, steps, memory: memory.train.length },
  seconds: { ours: mine, peer_cached: cached, peer_authors: authors },
  ours_over_peer: { cached: over(mine, cached), authors: over(mine, authors) },
  largest_difference: difference,
  load: Deno.loadavg()[0],
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const s = ({ wall, busy }: Time) => `${wall.toFixed(2)} s wall, ${busy.toFixed(2)} s busy`;
  console.log(
    `T-Patcher, ${count} patches of ${target.length} tokens, ${steps} steps, a memory of ${memory.train.length}, ` +
      `${gpu.description}, PyTorch ${torch}`,
  );
  console.log(`ours                    ${s(mine)}`);
  console.log(`PyTorch, cached         ${s(cached)}`);
  console.log(`PyTorch, authors' code  ${s(authors)} (${full} of ${steps} steps run)`);
  const ratio = ({ wall, busy }: Time) => `${wall.toFixed(2)} (busy ${busy.toFixed(2)})`;
  console.log(
    `ours over PyTorch: ${ratio(result.ours_over_peer.cached)} cached, ` +
      `${ratio(result.ours_over_peer.authors)} as the authors; losses differ by ` +
      `${difference.toExponential(1)} at most; load ${result.load.toFixed(1)}`,
  );
}
