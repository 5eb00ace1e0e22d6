import assert from "node:assert/strict";
import { csvCases, csvReport, isCsvReport } from "../../../evaluation/report/csv.ts";
import { groupRuns } from "../../../evaluation/report/groups.ts";
import { summarise } from "../../../evaluation/summarise.ts";
import { configOf, lineOf } from "./_runs.ts";

const drift = { drift: { before: { "drift.kl": 0 }, after: { "drift.kl": 0.25 } } };

function groupsOf(method: string) {
  const config = configOf({ indices: [0, 1], method });
  const lines = [
    lineOf(0, { ES: 1, EM: -0.5 }, { id: 'a"b,c', ...drift }),
    lineOf(1, { ES: 0, EM: 0.25 }, { id: "@SUM(1)" }),
  ];
  const summary = summarise(config, lines, undefined, { total_s: 1 });
  return groupRuns([{ paths: ["x"], config, lines, summary, missing: 0 }]);
}

Deno.test("csvReport() has a row for each stage and metric, with values as they are", () => {
  const rows = csvReport(groupsOf("rome")).trimEnd().split("\r\n").map((row) => row.split(","));
  const column = (name: string) => rows[0].indexOf(name);
  const table = rows.slice(1).map((row) =>
    ["stage", "family", "metric", "mean", "n"].map((name) => row[column(name)])
  );
  assert.deepEqual(table, [
    ["before", "Ranking", "ES", "0", "2"],
    ["before", "Drift", "drift.kl", "0", "1"],
    ["after", "Ranking: magnitude", "EM", "-0.125", "2"],
    ["after", "Ranking", "ES", "0.5", "2"],
    ["after", "Drift", "drift.kl", "0.25", "1"],
  ]);
  assert.ok(rows.every(({ length }) => length === rows[0].length));
});

Deno.test("csvCases() has a row for each case and metric, and no cell that is a formula", () => {
  const text = csvCases(groupsOf('=HYPERLINK("x")'));
  const rows = text.trimEnd().split("\r\n");
  assert.equal(rows[0], "run,method,protocol,id,index,stage,family,metric,value");
  const start = `"'=HYPERLINK(""x"")","'=HYPERLINK(""x"")",single`;
  assert.equal(rows[1], `${start},"a""b,c",0,before,Ranking,ES,0`);
  assert.ok(rows.includes(`${start},"a""b,c",0,after,Ranking: magnitude,EM,-0.5`), "numbers stay numbers");
  assert.ok(rows.includes(`${start},'@SUM(1),1,after,Ranking,ES,0`));
  assert.doesNotMatch(text, /(^|,)"?[=+@]/m);
  assert.ok(isCsvReport(text) && !isCsvReport("run,of,the,mill\r\n"));
});
