/**
 * Causal tracing of one prompt, ours and PyTorch's, in one go on the same token ids: the peer does what the
 * authors' code does (for every cell a forward of a clean and ten noisy rows, all layers, positions and logits),
 * we do the exact savings of the guide's sections 12 and 14. Three grids: states, MLP and attention windows.
 * The peer runs some cells of each grid, spread over it, and its time is theirs times the cells there are; cells
 * of a grid cost it the same. Kernels are compiled outside the clock. Prints seconds, processor seconds, ratios, and how far the scores agree.
 *
 *   deno run -A bench/peers/trace.ts --model FILE --python PYTHON [--prompt TEXT --subject TEXT] [--cells 30]
 */
import { cpuUsage } from "node:process";
import { Command } from "npm:commander@15.1.0";
import { modelPath } from "../../cli/model.ts";
import { commonSubjects } from "../../cli/trace/facts.ts";
import { traceGrids } from "../../editors/tracing/grids.ts";
import { subjectDeviation } from "../../editors/tracing/noise.ts";
import { recall } from "../../editors/tracing/prompt.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";

const flags = new Command()
  .requiredOption("--model <file>")
  .option("--python <command>", "", "python3")
  .option("--prompt <text>", "", "The mother tongue of Danielle Darrieux is")
  .option("--subject <text>", "", "Danielle Darrieux")
  .option("--cells <n>", "of each of the peer's grids", "30")
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const KINDS = ["state", "mlp", "attn"] as const;

interface Peer {
  torch: string;
  cells: number;
  run: number;
  corrupted: number;
  kinds: Record<string, {
    seconds_a_cell: number;
    cpu_seconds_a_cell: number;
    scores: [token: number, layer: number, p: number][];
  }>;
}

const path = await modelPath(flags.model);
const gpu = await Gpu.open();
const model = await loadModel(gpu, path);
const [{ prompt: { ids, subject }, says: answer }] = await recall(model, [
  { prompt: flags.prompt, subject: flags.subject },
]);
const noise = 3 * await subjectDeviation(model, await commonSubjects());

async function runPeer(): Promise<Peer> {
  const args = [
    new URL("trace_torch.py", import.meta.url).pathname,
    ...["--model", path, "--ids", ids.join(), "--subject", subject.join(), "--answer", String(answer)],
    ...["--noise", String(noise), "--cells", flags.cells, "--threads", flags.threads],
  ];
  const { code, stdout } = await new Deno.Command(flags.python, { args, stderr: "inherit" }).output();
  if (code !== 0) throw new Error("The peer failed");
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function runOurs(samples: number) {
  const wall = performance.now(), cpu = cpuUsage();
  const grids = await traceGrids(model, { ids, subject, answer }, { kinds: KINDS, noise, samples });
  const { user, system } = cpuUsage(cpu);
  return { ...grids, seconds: (performance.now() - wall) / 1000, cpu: (user + system) / 1e6 };
}

await runOurs(1); // compiles the kernels
const ours = await runOurs(10);
const peer = await runPeer();
const whole = (key: "seconds_a_cell" | "cpu_seconds_a_cell") =>
  KINDS.reduce((sum, kind) => sum + peer.cells * peer.kinds[kind][key], 0);
const off = KINDS.flatMap((kind) =>
  peer.kinds[kind].scores.map(([token, layer, p]) => Math.abs(ours.scores[kind]![token][layer] / p - 1))
);
const result = {
  date: new Date().toISOString().slice(0, 10),
  adapter: gpu.description,
  torch: peer.torch,
  ...{ prompt: flags.prompt, tokens: ids.length, subject, noise, cells: KINDS.length * peer.cells },
  peer_cells_run: KINDS.length * peer.run,
  peer_s: { wall: whole("seconds_a_cell"), cpu: whole("cpu_seconds_a_cell") },
  ours_s: { wall: ours.seconds, cpu: ours.cpu },
  faster: {
    wall: whole("seconds_a_cell") / ours.seconds,
    cpu: whole("cpu_seconds_a_cell") / ours.cpu,
  },
  largest_relative_difference: Math.max(...off),
  load: Deno.loadavg()[0],
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const { peer_s, ours_s, faster } = result;
  const s = (x: number) => `${x.toFixed(1)} s`;
  console.log(
    `tracing “${flags.prompt}”, ${ids.length} tokens, ${result.cells} cells, ${flags.model}, ${result.adapter}`,
  );
  console.log(
    `PyTorch ${peer.torch}: ${s(peer_s.wall)}, processor ${
      s(peer_s.cpu)
    } (from ${result.peer_cells_run} cells)`,
  );
  console.log(`ours: ${s(ours_s.wall)}, processor ${s(ours_s.cpu)}`);
  console.log(
    `${faster.wall.toFixed(1)} times as fast; by processor time ${faster.cpu.toFixed(1)}; ` +
      `scores agree to ${result.largest_relative_difference.toExponential(1)}; load ${
        result.load.toFixed(1)
      }`,
  );
}
