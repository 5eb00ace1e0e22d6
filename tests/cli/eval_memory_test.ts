/**
 * Methods that remember earlier edits, in runs whose edits stay: killed and resumed, a run ends as one that was not,
 * bit for bit. Fewer steps and contexts make the edits quick.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { CaseLine, RetainedLine } from "../../evaluation/records.ts";
import { inFolder, killed, linesOf, summaryOf, untimed } from "./_eval.ts";
import { emendJson, QUICK } from "./_run.ts";

for (
  const [method, batch, quick] of [
    ["memit-seq", "1", QUICK],
    ["alphaedit", "2", QUICK],
    ["ultraedit", "2", []],
    ["grace", "1", ["--set", "n_iter=5"]],
  ] as const
) {
  Deno.test(
    `${method} ends the same after a kill, ${batch} at a time on the weights as earlier edits left them`,
    inFolder(async (folder) => {
      const whole = join(folder, "whole"), broken = join(folder, "broken");
      const args = (out: string) => [
        ...["eval", "--model", "atlas", "--dataset", "atlas", "--method", method, "--limit", "4"],
        ...["--sequential", "--batch", batch, ...quick, "--out", out],
      ];
      await emendJson(args(whole));
      await killed([...args(broken), "--resume"], join(broken, "cases.jsonl"), 2);
      await emendJson([...args(broken), "--resume"]);
      assert.equal(untimed(await summaryOf(broken)), untimed(await summaryOf(whole)));
      const cases = (out: string) => linesOf<CaseLine>(join(out, "cases.jsonl"));
      assert.equal(untimed(await cases(broken)), untimed(await cases(whole)));
      const retained = (out: string) => linesOf<RetainedLine>(join(out, "retained.jsonl"));
      assert.equal(untimed(await retained(broken)), untimed(await retained(whole)));
    }),
  );
}
