/**
 * A query of SERAC against a memory of many edits, ours and PyTorch's in turn, in one go: MiniLM embeds the prompt,
 * the nearest memory is found, and the base model gives the logits of the next token, with the edit in front where
 * the prompt is in scope. Embeddings of memories are made once on both sides; two queries
 * of the peer make them again, as the released code does with every one. The peer is given the same texts for MiniLM and the same token ids for the base. Half of the
 * queries are rewordings of edits in the memory, half are about others. Loading and compiling are outside the clocks.
 *
 *   deno run -A bench/peers/serac.ts --gguf FILE --data counterfact-easyedit-edit.json --python PYTHON
 *     [--memories 1000] [--queries 10] [--repeat 3] [--threads 2] [--json]
 */
import { Command } from "npm:commander@15.1.0";
import { applyEdit } from "../../editors/edit.ts";
import { minilmFolder } from "../../editors/prompts/encoders.ts";
import { following } from "../../editors/prompts/text.ts";
import type { EditRequest } from "../../editors/requests.ts";
import { serac } from "../../editors/serac/serac.ts";
import { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import { nextLogits } from "../../engine/models/next.ts";
import { routesOf } from "../../engine/models/route.ts";
import { likeliest } from "../../engine/models/sample.ts";
import { Peer } from "./peer.ts";
import { median, type PeerSeconds, peerTime, type Time, timed } from "./times.ts";

const flags = new Command()
  .requiredOption("--gguf <file>")
  .requiredOption("--data <file>", "records in EasyEdit's CounterFact layout")
  .option("--python <command>", "", "python3")
  .option("--memories <n>", "", "1000")
  .option("--queries <n>", "", "10")
  .option("--repeat <n>", "", "3")
  .option("--threads <n>", "", "2")
  .option("--json")
  .parse(Deno.args, { from: "user" }).opts();

const threads = Number(flags.threads);
const all: { prompt: string; subject: string; target_new: string; rephrase_prompt: string }[] = JSON.parse(
  await Deno.readTextFile(flags.data),
);
const records = all.filter(({ prompt, subject }) => prompt.includes(subject));
const count = Number(flags.memories), queries = Number(flags.queries);
const edited = records.slice(0, count);
if (edited.length < count) throw new Error(`${flags.data} has fewer than ${count} records`);
const texts = Array.from(
  { length: queries },
  (_, i) => i % 2 === 0 ? edited[Math.floor(i * count / queries)].rephrase_prompt : records[count + i].prompt,
);

using gpu = await Gpu.open();
using model = await loadModel(gpu, flags.gguf);
const { tokenizer } = model;
const requests = edited.map(({ prompt, subject, target_new }): EditRequest => (
  { prompt: prompt.replace(subject, "{}"), subject, target: target_new }
));
const { hparams } = serac.parse({ scope: "encoder", counterfactual: "base", encoder: "minilm" }, "the bench");
const edit = await serac.run(model, requests, { hparams });
const { facts, scope } = edit.prompts!;
using _ = applyEdit(model, edit);
const prompts = texts.map((text) => tokenizer.encode(text));
const routes = await routesOf(model, prompts);

const peer = new Peer(flags.python, "serac_torch.py", [
  ...["--gguf", flags.gguf, "--encoder", minilmFolder(), "--threads", flags.threads],
]);
const { torch } = await peer.read<{ torch: string }>();
await peer.ask({ memories: facts.map(({ text }) => text), limit: scope.limit, margin: scope.margin });
const ask = (i: number, again = false) =>
  peer.ask<PeerSeconds & { hit: boolean; token: number }>({
    again,
    text: texts[i],
    plain: prompts[i],
    // What is read in scope: the front that we chose, which the peer's own choice must agree with.
    memory: facts.findIndex(({ front }) => tokenizer.encode(front).join() === routes[i].front.join()),
    whole: [...routes[i].front, ...following(tokenizer, prompts[i])],
  });
const ours = async (i: number) => likeliest((await nextLogits(model, [prompts[i]]))[0], 1)[0];
for (let i = 0; i < queries; i++) {
  await ours(i);
  await ask(i);
}

const runs: Record<"ours" | "peer", Time[]> = { ours: [], peer: [] };
const disagreements: string[] = [];
for (let r = 0; r < Number(flags.repeat); r++) {
  for (let i = 0; i < queries; i++) {
    const { made, time } = await timed(threads, () => ours(i));
    const got = await ask(i);
    runs.ours.push(time);
    runs.peer.push(peerTime(got, threads));
    if (got.hit !== routes[i].claimed || got.token !== made) disagreements.push(texts[i]);
  }
}
const again: Time[] = [];
for (const i of [0, 1]) again.push(peerTime(await ask(i, true), threads));
await peer.close();
const [mine, theirs, authors] = [median(runs.ours), median(runs.peer), median(again)];
const result = {
  ...{ date: new Date().toISOString().slice(0, 10), adapter: gpu.description, torch },
  ...{ memories: count, queries, hits: routes.filter(({ claimed }) => claimed).length },
  seconds_a_query: { ours: mine, peer: theirs, authors_way: authors },
  ours_over_peer: { wall: mine.wall / theirs.wall, busy: mine.busy / theirs.busy },
  ours_over_authors_way: { wall: mine.wall / authors.wall, busy: mine.busy / authors.busy },
  disagreements: [...new Set(disagreements)],
  load: Deno.loadavg()[0],
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const s = ({ wall, busy }: Time) =>
    `${(1e3 * wall).toFixed(0)} ms wall, ${(1e3 * busy).toFixed(0)} ms busy`;
  console.log(
    `${count} memories, ${queries} queries, ${result.hits} in scope, ${gpu.description}, PyTorch ${torch}`,
  );
  console.log(`ours      ${s(mine)} a query`);
  console.log(`PyTorch   ${s(theirs)} a query; ${s(authors)} embedding the memory again`);
  console.log(
    `ours over PyTorch: ${result.ours_over_peer.wall.toFixed(2)} (busy ${
      result.ours_over_peer.busy.toFixed(2)
    }), over the authors' way ${result.ours_over_authors_way.wall.toFixed(3)} (busy ${
      result.ours_over_authors_way.busy.toFixed(3)
    }); ` +
      `${result.disagreements.length} queries answered otherwise; load ${result.load.toFixed(1)}`,
  );
}
