/**
 * The tables of docs/results.md: makes the runs of one table with `eval`, one after another, and prints the
 * table of those that are finished. Stopped and started again it goes on where it was.
 *
 *   deno run -A tools/results.ts --model M --dataset D --table single|memory|batches|sequences --out DIR
 *       [--limit N] [--methods a,b] [--batches 1,10] [--print] [--drift]
 */
import { Command, Option } from "npm:commander@15.1.0";
import type { Summary } from "../evaluation/records.ts";
import { type PlannedRun, plannedRuns, type TableName } from "./results/plan.ts";
import { type Finished, printTable } from "./results/print.ts";

const flags = new Command()
  .requiredOption("--model <M>")
  .requiredOption("--dataset <D>")
  .requiredOption("--out <dir>", "folder of the runs' folders")
  .addOption(
    new Option("--table <name>").choices(["single", "memory", "batches", "sequences"]).makeOptionMandatory(),
  )
  .option("--limit <n>", "records of a single run or a sequence")
  .option("--methods <list>")
  .option("--batches <list>")
  .option("--drift", "measure the model elsewhere after every edit")
  .option("--print", "run nothing")
  .parse(Deno.args, { from: "user" }).opts();

const list = (text?: string) => text?.split(",");
const runs = plannedRuns(flags.table as TableName, {
  methods: list(flags.methods),
  limit: flags.limit === undefined ? undefined : Number(flags.limit),
  batches: list(flags.batches)?.map(Number),
  dataset: flags.dataset,
});

async function summaryOf({ folder }: PlannedRun): Promise<Summary | undefined> {
  const text = await Deno.readTextFile(`${flags.out}/${folder}/summary.json`).catch(() => undefined);
  return text === undefined ? undefined : JSON.parse(text);
}

async function make({ folder, method, batch, sequential, limit, set }: PlannedRun): Promise<void> {
  const options = [
    ...["--model", flags.model, "--dataset", flags.dataset, "--method", method, "--batch", String(batch)],
    ...["--metrics", flags.drift ? "drift" : "none", "--out", `${flags.out}/${folder}`, "--resume"],
    ...(limit === undefined ? [] : ["--limit", String(limit)]),
    ...set.flatMap((one) => ["--set", one]),
    sequential ? "--sequential" : "--cache-targets",
  ];
  const cli = new URL("../cli.ts", import.meta.url).pathname;
  console.error(`${folder}: eval ${options.join(" ")}`);
  const args = ["run", "-A", cli, "eval", ...options];
  const { code } = await new Deno.Command(Deno.execPath(), { args, stdin: "null", stdout: "null" }).spawn()
    .status;
  if (code !== 0) console.error(`${folder}: ended with ${code}`);
}

const finished: Finished[] = [];
for (const run of runs) {
  if (!flags.print && !await summaryOf(run)) await make(run);
  const summary = await summaryOf(run);
  if (summary) finished.push({ ...run, summary });
}
console.log(printTable(flags.table as TableName, finished));
