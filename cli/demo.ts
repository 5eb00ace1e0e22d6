/** `emend demo`: the main job on the embedded model, end to end, with what changed and what did not. */
import { Command } from "npm:commander@15.1.0";
import { applyDeltas } from "../editors/edit.ts";
import { findStatistics } from "../editors/find_statistics.ts";
import { methodNamed } from "../editors/methods.ts";
import { fill } from "../editors/requests.ts";
import { generate } from "../engine/models/generate.ts";
import type { ProbeKind } from "../evaluation/cases.ts";
import { readDataset } from "../evaluation/datasets/read.ts";
import { scoreCase } from "../evaluation/metrics/index.ts";
import { readCase } from "../evaluation/readings.ts";
import type { Readings } from "../evaluation/records.ts";
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
  const { cases } = await readDataset("atlas");
  const one = cases[number("--case", flags.case, 0, cases.length - 1, true)];
  const [request] = one.requests;
  using session = await openSession("atlas");
  const { model, gpu, loadSeconds } = session;
  const say = (text = "") => flags.json || console.log(text);
  const { tokenizer } = model;

  const some = (what: string, kind: ProbeKind, most: number) =>
    one.probes.filter((probe) => probe.kind === kind).slice(0, most).map(({ prompt }) => [what, prompt]);
  const questions = [
    ["the fact", fill(request.prompt, request.subject).text],
    ...some("said otherwise", "paraphrase", 2),
    ...some("a neighbour", "neighbour", 3),
    ...some("follows from it", "reasoning", 1),
  ];
  const answer = async () => {
    const ids = questions.map(([, text]) => tokenizer.encode(text));
    const texts = await generate(model, ids, { maxTokens: 8 });
    return texts.map((t) => tokenizer.decode(t).split(".")[0]);
  };
  const said = await answer();
  say(`atlas knows ${JSON.stringify(questions[0][1])}${said[0]}.`);
  say(`Now it shall say${request.target} (R-ROME, ${gpu.description}) …\n`);

  const method = methodNamed("r-rome");
  const { hparams } = method.parse(method.recipe(model).hparams, "The recipe");
  using statistics = await findStatistics(model, method.statistics(hparams));
  const read = () => readCase(model, one, { generate: false, texts: false }, 0);
  const before = await read();
  const start = performance.now();
  const edit = await method.run(model, [request], { hparams, statistics });
  const editSeconds = (performance.now() - start) / 1000;
  let saying: string[], after: Readings;
  {
    using _applied = applyDeltas(model, edit.deltas);
    saying = await answer();
    after = await read();
  }
  const undone = await answer();
  const scoresBefore = scoreCase(one, before, before), scoresAfter = scoreCase(one, before, after);
  const exact = undone.every((text, i) => text === said[i]);
  if (flags.json) {
    return printJson({
      request,
      questions: questions.map(([kind, prompt], i) => ({ kind, prompt, before: said[i], after: saying[i] })),
      scores: { before: scoresBefore, after: scoresAfter },
      undone: exact,
      time_s: { load: loadSeconds, edit: editSeconds },
    });
  }
  say(
    table([
      ["", "prompt", "before", "after"],
      ...questions.map(([kind, text], i) => [kind, text, said[i], saying[i]]),
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
