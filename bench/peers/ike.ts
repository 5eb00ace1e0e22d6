/**
 * IKE's scoring of one record of CounterFact, ours and PyTorch's in turn, in one go on the same token ids: 13 prompts
 * with 2 candidates each behind one front of demonstrations. The peer does it in two ways: as we do, the front's keys
 * and values once and the 26 sequences over them as one padded batch; and as the authors' code does, 26 forwards of
 * the whole text, of which `--full` are run and the rest computed from them. Loading, retrieval and compiling are
 * outside the clocks. Prints seconds, ratios, and how far the scores agree.
 *
 *   deno run -A bench/peers/ike.ts --gguf FILE --data counterfact.json --python PYTHON [--repeat 3] [--full 2]
 *     [--threads 2] [--json]
 */
import { Command } from "npm:commander@15.1.0";
import { applyEdit } from "../../editors/edit.ts";
import { ike } from "../../editors/ike.ts";
import { following } from "../../editors/prompts/text.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { Peer } from "./peer.ts";
import { median, type PeerSeconds, peerTime, type Time, timed } from "./times.ts";

const flags = new Command()
  .requiredOption("--gguf <file>")
  .requiredOption("--data <file>", "records in CounterFact's layout; the first is scored")
  .option("--python <command>", "", "python3")
  .option("--repeat <n>", "", "3")
  .option("--full <n>", "whole texts that the peer runs", "2")
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const threads = Number(flags.threads);
using gpu = await Gpu.open();
using model = await loadModel(gpu, flags.gguf);
const { tokenizer } = model;
const [record] = JSON.parse(await Deno.readTextFile(flags.data));
const { prompt, subject, target_new, target_true } = record.requested_rewrite;
const { hparams } = ike.parse({ corpus: flags.data, corpus_skip: 1 }, "the bench");
const edit = await ike.run(model, [{ prompt, subject, target: target_new.str }], { hparams });
const prompts: string[] = [
  prompt.replace("{}", subject),
  ...record.paraphrase_prompts,
  ...record.neighborhood_prompts,
];
const candidates = [target_new.str, target_true.str].map((text: string) =>
  tokenizer.encode(` ${text}`, { special: false })
);
const items = prompts.flatMap((text) =>
  candidates.map((target) => ({ prompt: tokenizer.encode(text), target }))
);
using _ = applyEdit(model, edit);

const front = tokenizer.encode(edit.prompts!.facts[0].front);
const tails = items.map((item) => [...following(tokenizer, item.prompt)]);
const targets = items.map(({ target }) => target);
const peer = new Peer(flags.python, "ike_torch.py", ["--gguf", flags.gguf, "--threads", flags.threads]);
const { torch } = await peer.read<{ torch: string }>();
const ask = (task: "prefix" | "full", count: number) =>
  peer.ask<PeerSeconds & { scores: number[] }>({
    ...{ task, front, tails: tails.slice(0, count), targets: targets.slice(0, count) },
  });

const scoreOf = (logProbs: number[]) => logProbs.reduce((a, b) => a + b, 0) / logProbs.length;
const ours = async () => (await scoreTargets(model, items)).map(({ logProbs }) => scoreOf(logProbs));
await ours();
await ask("prefix", items.length);

const runs: Record<"ours" | "prefix" | "full", Time[]> = { ours: [], prefix: [], full: [] };
const full = Number(flags.full);
let difference = 0;
for (let i = 0; i < Number(flags.repeat); i++) {
  const { made, time } = await timed(threads, ours);
  runs.ours.push(time);
  const prefix = await ask("prefix", items.length);
  runs.prefix.push(peerTime(prefix, threads));
  const whole = await ask("full", full);
  const { wall, busy } = peerTime(whole, threads);
  runs.full.push({ wall: wall * items.length / full, busy: busy * items.length / full });
  for (const { scores } of [prefix, whole]) {
    scores.forEach((score, i) => difference = Math.max(difference, Math.abs(score - made[i])));
  }
}
await peer.close();
const [mine, cached, authors] = [median(runs.ours), median(runs.prefix), median(runs.full)];
const over = (a: Time, b: Time) => ({ wall: a.wall / b.wall, busy: a.busy / b.busy });
const result = {
  ...{ date: new Date().toISOString().slice(0, 10), adapter: gpu.description, torch },
  ...{ sequences: items.length, front_tokens: front.length, runs: Number(flags.repeat) },
  seconds: { ours: mine, peer_shared_prefix: cached, peer_whole_texts: authors },
  ours_over_peer: { shared_prefix: over(mine, cached), whole_texts: over(mine, authors) },
  largest_difference_of_log_scores: difference,
  load: Deno.loadavg()[0],
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const s = ({ wall, busy }: Time) => `${wall.toFixed(2)} s wall, ${busy.toFixed(2)} s busy`;
  console.log(
    `${items.length} sequences behind ${front.length} tokens, ${gpu.description}, PyTorch ${torch}`,
  );
  console.log(`ours                     ${s(mine)}`);
  console.log(`PyTorch, shared prefix   ${s(cached)}`);
  console.log(`PyTorch, whole texts     ${s(authors)} (${full} of ${items.length} run)`);
  const { shared_prefix, whole_texts } = result.ours_over_peer;
  console.log(
    `ours over PyTorch: ${shared_prefix.wall.toFixed(2)} (busy ${
      shared_prefix.busy.toFixed(2)
    }) with a shared ` +
      `prefix, ${whole_texts.wall.toFixed(3)} (busy ${whole_texts.busy.toFixed(3)}) with whole texts`,
  );
  console.log(`log-scores differ by ${difference.toExponential(1)}; load ${result.load.toFixed(1)}`);
}
