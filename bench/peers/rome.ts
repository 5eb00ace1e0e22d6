/**
 * One ROME edit, ours and PyTorch's, in one go on the same token ids: the peer does what the authors' code does
 * (every step a full forward of all positions and layers), we do the exact savings of the guide's section 14.
 * Prints seconds, the ratio, and how far the losses agree. The model's first edit, which compiles its kernels,
 * is timed apart. C⁻¹ is prepared outside the clock on both sides.
 *
 *   deno run -A bench/peers/rome.ts --gguf FILE --python PYTHON [--layer 10] [--steps 20] [--repeat 3] [--json]
 */
import { Command } from "npm:commander@15.1.0";
import { romeUpdate } from "../../editors/rome.ts";
import { optimiseTargets, type TargetRequest } from "../../editors/targets.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { choleskyInPlace, choleskySolve } from "../../engine/linalg/host.ts";
import { loadModel } from "../../engine/models/load.ts";
import { seededRandom } from "../../engine/models/sample.ts";

const flags = new Command()
  .requiredOption("--gguf <file>")
  .option("--python <command>", "", "python3")
  .option("--layer <n>", "", "10")
  .option("--steps <n>", "", "20")
  .option("--repeat <n>", "", "3")
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const spec = {
  prompt: "The mother tongue of {} is",
  subject: "Danielle Darrieux",
  target_new: "English",
  layer: Number(flags.layer),
  steps: Number(flags.steps),
  early_stop: false,
  hparams: { lr: 0.5, clamp: 4, weight_decay: 0.5, kl: 0.0625 },
};

interface Peer {
  total_each: number[];
  cpu_seconds_each: number[];
  losses: number[][];
  delta_norm: number;
  torch: string;
  seconds: Record<string, number>;
  ids: {
    contexts: number[][];
    subject_last: number[];
    target: number[];
    kl: { ids: number[]; subject_last: number };
  };
}

/** Runs the peer; `policy` says how its threads wait: spinning is faster on an idle machine only. */
async function runPeer(policy: "active" | "passive"): Promise<Peer> {
  const file = await Deno.makeTempFile({ suffix: ".json" });
  await Deno.writeTextFile(file, JSON.stringify(spec));
  const script = new URL("rome_torch.py", import.meta.url).pathname;
  const args = [
    script,
    "--gguf",
    flags.gguf,
    "--case",
    file,
    "--threads",
    flags.threads,
    "--repeat",
    flags.repeat,
  ];
  const env = policy === "passive" ? { OMP_WAIT_POLICY: "passive", GOMP_SPINCOUNT: "0" } : {
    OMP_WAIT_POLICY: "active",
    GOMP_SPINCOUNT: "100000",
  };
  const { code, stdout } = await new Deno.Command(flags.python, { args, env, stderr: "inherit" }).output();
  await Deno.remove(file);
  if (code !== 0) throw new Error("The peer failed");
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function runOurs(peer: Peer) {
  const gpu = await Gpu.open();
  const model = await loadModel(gpu, flags.gguf);
  const request: TargetRequest = {
    prompts: peer.ids.contexts.map((ids, i) => ({ text: "", ids, subjectLast: peer.ids.subject_last[i] })),
    target: peer.ids.target,
    kl: { text: "", ids: peer.ids.kl.ids, subjectLast: peer.ids.kl.subject_last },
  };
  const C = madeUpStatistics(64);
  choleskyInPlace(C, 64, "C");
  // A block-diagonal C of 64-wide blocks: its values change the direction of the update, not our cost.
  const solve = (key: Float64Array) => {
    const out = new Float64Array(key.length);
    for (let at = 0; at < key.length; at += 64) out.set(choleskySolve(C, 64, key.subarray(at, at + 64)), at);
    return Promise.resolve(out);
  };
  const options = {
    layer: spec.layer,
    v_num_grad_steps: spec.steps,
    v_lr: spec.hparams.lr,
    v_weight_decay: spec.hparams.weight_decay,
    clamp_norm_factor: spec.hparams.clamp,
    kl_factor: spec.hparams.kl,
    threshold: -1,
  };
  const before = gpu.memory.now;
  const each: number[] = [];
  let losses: number[] = [], deltaNorm = 0;
  gpu.memory.resetPeak();
  const waits = gpu.waits;
  for (let i = 0; i <= Number(flags.repeat); i++) {
    const start = performance.now();
    const [target] = await optimiseTargets(model, [request], options);
    await romeUpdate("rome", target, solve);
    each.push((performance.now() - start) / 1000);
    losses = target.losses.map((l) => l.nll + l.kl + l.wd);
    deltaNorm = Math.hypot(...target.delta);
  }
  return {
    adapter: gpu.description,
    first: each[0],
    each: each.slice(1),
    losses,
    deltaNorm,
    waits: (gpu.waits - waits) / each.length,
    memory: { weights: before, peak: gpu.memory.peak },
  };
}

/** A well-conditioned symmetric positive definite matrix. */
function madeUpStatistics(n: number): Float64Array {
  const random = seededRandom(7);
  const keys = Float64Array.from({ length: 4 * n * n }, () => random() - 0.5);
  const C = new Float64Array(n * n);
  for (let t = 0; t < 4 * n; t++) {
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) C[i * n + j] += keys[t * n + i] * keys[t * n + j];
  }
  return C;
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

const passive = await runPeer("passive");
const active = await runPeer("active");
const ours = await runOurs(passive);
const peerSeconds = Math.min(median(passive.total_each), median(active.total_each)) - passive.seconds.inverse;
const worst = Math.max(...ours.losses.map((l, i) => Math.abs(l - passive.losses[i][0])));
const result = {
  date: new Date().toISOString().slice(0, 10),
  adapter: ours.adapter,
  torch: passive.torch,
  case: spec,
  peer_s: { passive: passive.total_each, active: active.total_each, without_inverse: peerSeconds },
  ours_s: { first: ours.first, each: ours.each },
  ratio: median(ours.each) / peerSeconds,
  ratio_first: ours.first / peerSeconds,
  largest_loss_difference: worst,
  delta_norm: { ours: ours.deltaNorm, peer: passive.delta_norm },
  waits_per_edit: ours.waits,
  memory: { ...ours.memory, overhead: ours.memory.peak / ours.memory.weights - 1 },
  load: Deno.loadavg()[0],
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  console.log(
    `ROME on ${flags.gguf.split("/").at(-1)}, layer ${spec.layer}, ${spec.steps} steps, ${ours.adapter}`,
  );
  console.log(
    `PyTorch ${passive.torch}: ${peerSeconds.toFixed(1)} s (waiting ${
      median(passive.total_each).toFixed(1)
    }, spinning ${median(active.total_each).toFixed(1)})`,
  );
  console.log(
    `ours: ${median(ours.each).toFixed(1)} s, the first, with compiling, ${ours.first.toFixed(1)} s`,
  );
  console.log(
    `ratio ${result.ratio.toFixed(2)} (first ${
      result.ratio_first.toFixed(2)
    }); waits ${ours.waits}; losses agree to ${worst.toExponential(1)}`,
  );
  console.log(
    `device memory: weights ${mib(ours.memory.weights)}, peak ${mib(ours.memory.peak)}, +${
      (100 * result.memory.overhead).toFixed(0)
    } %`,
  );
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}
