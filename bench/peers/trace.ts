/**
 * Causal tracing of one prompt, ours and PyTorch's, in one go on the same token ids: the peer does what the
 * authors' code does (for every cell a forward of a clean and ten noisy rows, all layers, positions and logits),
 * we do the exact savings of the guide's sections 12 and 14. Three grids: states, MLP and attention windows.
 * The peer runs some cells of each grid, spread over it, half of them before each of our traces and half after,
 * and its time is theirs times the cells there are; cells of a grid cost it the same. Kernels are compiled outside
 * the clock. Prints seconds by the clock and `busy`, the processors' seconds over their number, ratios, and how far
 * the scores agree.
 *
 *   deno run -A bench/peers/trace.ts --model FILE --python PYTHON [--prompt TEXT --subject TEXT] [--cells 30]
 *     [--repeat 1]
 */
import { cpuUsage } from "node:process";
import { Command } from "npm:commander@15.1.0";
import { modelPath } from "../../cli/model.ts";
import { commonSubjects } from "../../cli/trace/facts.ts";
import { type Grids, traceGrids } from "../../editors/tracing/grids.ts";
import { subjectDeviation } from "../../editors/tracing/noise.ts";
import { recall } from "../../editors/tracing/prompt.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import { Peer } from "./peer.ts";

const flags = new Command()
  .requiredOption("--model <file>")
  .option("--python <command>", "", "python3")
  .option("--prompt <text>", "", "The mother tongue of Danielle Darrieux is")
  .option("--subject <text>", "", "Danielle Darrieux")
  .option("--cells <n>", "of each of the peer's grids", "30")
  .option("--repeat <n>", "", "1")
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const KINDS = ["state", "mlp", "attn"] as const;

/** By the clock, and of the processors over their number. */
interface Time {
  wall: number;
  busy: number;
}

type CellAt = [token: number, layer: number];

const path = await modelPath(flags.model);
const gpu = await Gpu.open();
const model = await loadModel(gpu, path);
const [{ prompt: { ids, subject }, says: answer }] = await recall(model, [
  { prompt: flags.prompt, subject: flags.subject },
]);
const noise = 3 * await subjectDeviation(model, await commonSubjects());

const threads = Number(flags.threads);
const peer = new Peer(flags.python, "trace_torch.py", [
  ...["--model", path, "--ids", ids.join(), "--subject", subject.join(), "--answer", String(answer)],
  ...["--noise", String(noise), "--threads", flags.threads],
]);
const { torch, layers } = await peer.read<{ torch: string; layers: number }>();
const all = ids.flatMap((_, token) => Array.from({ length: layers }, (_, layer): CellAt => [token, layer]));
const step = Math.max(1, all.length / Number(flags.cells));
const chosen = Array.from(
  { length: Math.floor(all.length / step) },
  (_, i) => all[Math.floor((i + 0.5) * step)],
);
/** One half of them, spread as all of them are. */
const half = (which: 0 | 1) => chosen.filter((_, i) => i % 2 === which);

/** Seconds of the peer for all cells of all grids, from some; each score's relative difference from ours. */
async function runPeer(cells: CellAt[], ours: Grids["scores"]): Promise<{ whole: Time; off: number[] }> {
  const whole = { wall: 0, busy: 0 };
  const off: number[] = [];
  for (const kind of KINDS) {
    const got = await peer.ask<{ seconds: number; cpu_seconds: number; scores: number[] }>({ kind, cells });
    whole.wall += got.seconds * all.length / cells.length;
    whole.busy += got.cpu_seconds / threads * all.length / cells.length;
    got.scores.forEach((p, i) => off.push(Math.abs(ours[kind]![cells[i][0]][cells[i][1]] / p - 1)));
  }
  return { whole, off };
}

async function runOurs(samples: number): Promise<Time & Pick<Grids, "scores">> {
  const wall = performance.now(), cpu = cpuUsage();
  const { scores } = await traceGrids(model, { ids, subject, answer }, {
    ...{ kinds: KINDS, noise, samples },
    window: 10, // the peer's
  });
  const { user, system } = cpuUsage(cpu);
  return { scores, wall: (performance.now() - wall) / 1000, busy: (user + system) / 1e6 / threads };
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

const { scores } = await runOurs(10); // compiles the kernels
const runs: { ours: Time; peer: Time; off: number }[] = [];
for (let i = 0; i < Number(flags.repeat); i++) {
  const before = await runPeer(half(0), scores);
  const { wall, busy } = await runOurs(10);
  const after = await runPeer(half(1), scores);
  const mean = (of: keyof Time) => (before.whole[of] + after.whole[of]) / 2;
  runs.push({
    ours: { wall, busy },
    peer: { wall: mean("wall"), busy: mean("busy") },
    off: Math.max(...before.off, ...after.off),
  });
}
await peer.close();
const of = (who: "ours" | "peer") => ({
  wall: median(runs.map((r) => r[who].wall)),
  busy: median(runs.map((r) => r[who].busy)),
});
const faster = (by: keyof Time) => median(runs.map((r) => r.peer[by] / r.ours[by]));
const result = {
  date: new Date().toISOString().slice(0, 10),
  adapter: gpu.description,
  torch,
  ...{ prompt: flags.prompt, tokens: ids.length, subject, noise, cells: KINDS.length * all.length },
  peer_cells_run: KINDS.length * chosen.length,
  ...{ peer_s: of("peer"), ours_s: of("ours"), faster: { wall: faster("wall"), busy: faster("busy") } },
  largest_relative_difference: Math.max(...runs.map((r) => r.off)),
  load: Deno.loadavg()[0],
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const s = ({ wall, busy }: Time) => `${wall.toFixed(1)} s wall, ${busy.toFixed(1)} s busy`;
  console.log(
    `tracing “${flags.prompt}”, ${ids.length} tokens, ${result.cells} cells, ${flags.model}, ${result.adapter}`,
  );
  console.log(`PyTorch ${torch}: ${s(result.peer_s)} (computed from ${result.peer_cells_run} cells)`);
  console.log(`ours: ${s(result.ours_s)} (measured)`);
  console.log(
    `${result.faster.wall.toFixed(1)} times as fast, busy ${
      result.faster.busy.toFixed(1)
    }; scores agree to ` +
      `${result.largest_relative_difference.toExponential(1)}; load ${result.load.toFixed(1)}`,
  );
}
