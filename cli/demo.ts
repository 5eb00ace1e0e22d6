/** `emend demo`: the main job on the embedded model, end to end, with what changed and what did not. */
import { Command } from "npm:commander@15.1.0";
import { atlasData } from "../atlas/mod.ts";
import { applyDeltas } from "../editors/edit.ts";
import { findStatistics } from "../editors/find_statistics.ts";
import { methodNamed } from "../editors/methods.ts";
import { fill, validateRequest } from "../editors/requests.ts";
import { generate } from "../engine/models/generate.ts";
import { type CounterFactRecord, counterFactScores, requestOf } from "../evaluation/counterfact.ts";
import { number } from "./inputs.ts";
import { openSession } from "./model.ts";
import { printJson, seconds, table } from "./terminal.ts";

export function demoCommand(): Command {
  return new Command("demo")
    .description("Edit a fact in the embedded model and show what changed: a minute on any machine")
    .option("--case <n>", "which record of atlas' evaluation set", "0")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  deno run -A cli.ts demo")
    .action((flags: { case: string; json?: boolean }) => runDemo(flags));
}

async function runDemo(flags: { case: string; json?: boolean }): Promise<void> {
  const records: CounterFactRecord[] = JSON.parse(await atlasData("counterfact.json"));
  const record = records[number("--case", flags.case, 0, records.length - 1, true)];
  const request = validateRequest(requestOf(record));
  using session = await openSession("atlas");
  const { model, gpu, loadSeconds } = session;
  const say = (text = "") => flags.json || console.log(text);
  const { tokenizer } = model;

  const questions: [string, string][] = [
    ["the fact", fill(request.prompt, request.subject).text],
    ...record.paraphrase_prompts.slice(0, 2).map((p): [string, string] => ["said otherwise", p]),
    ...record.neighborhood_prompts.slice(0, 3).map((p): [string, string] => ["a neighbour", p]),
    ...(record.two_hop ?? []).slice(0, 1).map((h): [string, string] => ["follows from it", h.prompt]),
  ];
  const answer = async () => {
    const ids = questions.map(([, text]) => tokenizer.encode(text));
    const texts = await generate(model, ids, { maxTokens: 8 });
    return texts.map((t) => tokenizer.decode(t).split(".")[0]);
  };
  const before = await answer();
  say(`atlas knows ${JSON.stringify(questions[0][1])}${before[0]}.`);
  say(`Now it shall say${request.target} (R-ROME, ${gpu.description}) …\n`);

  const method = methodNamed("r-rome");
  const { hparams } = method.parse(method.recipe(model).hparams, "The recipe");
  using statistics = await findStatistics(model, method.statistics(hparams));
  const scoresBefore = await counterFactScores(model, record);
  const start = performance.now();
  const edit = await method.run(model, [request], { hparams, statistics });
  const editSeconds = (performance.now() - start) / 1000;
  let after: string[], scoresAfter;
  {
    using _applied = applyDeltas(model, edit.deltas);
    after = await answer();
    scoresAfter = await counterFactScores(model, record);
  }
  const undone = await answer();
  const exact = undone.every((text, i) => text === before[i]);
  if (flags.json) {
    return printJson({
      request,
      questions: questions.map(([kind, prompt], i) => ({ kind, prompt, before: before[i], after: after[i] })),
      scores: { before: scoresBefore, after: scoresAfter },
      undone: exact,
      time_s: { load: loadSeconds, edit: editSeconds },
    });
  }
  say(
    table([
      ["", "prompt", "before", "after"],
      ...questions.map(([kind, text], i) => [kind, text, before[i], after[i]]),
    ]),
  );
  const share = (x?: number) => x === undefined ? "–" : `${(100 * x).toFixed(0)} %`;
  say();
  say(table([
    ["score", "before", "after", "what it means"],
    [
      "efficacy",
      share(scoresBefore.ES),
      share(scoresAfter.ES),
      "the new object is likelier than the old one",
    ],
    [
      "paraphrase",
      share(scoresBefore.PS),
      share(scoresAfter.PS),
      "… in phrasings never seen with this subject",
    ],
    ["neighbourhood", share(scoresBefore.NS), share(scoresAfter.NS), "other subjects keep their objects"],
  ]));
  const { role, rank } = edit.deltas[0];
  say(`\nchanged: ${role}, rank ${rank}; ${edit.outcomes[0].steps} steps, ${seconds(editSeconds)}`);
  say(`undone: ${exact ? "the answers are what they were" : "the answers differ"}`);
}
