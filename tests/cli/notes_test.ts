/** What a method says of an edit as a whole reaches who asked for it: on the screen, and in what is written. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { join } from "node:path";
import type { CaseLine } from "../../evaluation/records.ts";
import { inFolder, linesOf } from "./_eval.ts";
import { EDIT, emend, emendJson, QUICK } from "./_run.ts";

const KEEPS = /^Layer [01]: P keeps \d+ of 1024 dimensions \(eigenvalues of C below 0\.\d+\)$/;

Deno.test("edit prints what alphaedit's projectors keep, a layer each", async () => {
  const args = [...EDIT, "--method", "alphaedit", ...QUICK];
  const { notes } = await emendJson(args);
  strictEqual(notes.length, 2);
  for (const note of notes) match(note, KEEPS);
  const { stdout } = await emend(args);
  for (const note of notes) strictEqual(stdout.split(`note: ${note}`).length, 2, stdout);
});

Deno.test(
  "eval says the same once, and keeps it with the edit that said it",
  inFolder(async (folder) => {
    const out = join(folder, "run");
    const args = [
      "--model",
      "atlas",
      "--dataset",
      "atlas",
      "--limit",
      "2",
      "--metrics",
      "none",
      "--out",
      out,
    ];
    const { code, stderr } = await emend(["eval", "--method", "alphaedit", ...args, ...QUICK]);
    strictEqual(code, 0, stderr);
    const said = stderr.split("\n").filter((line) => line.startsWith("note: "));
    strictEqual(said.length, 2, stderr);
    const lines = await linesOf<CaseLine>(join(out, "cases.jsonl"));
    for (const { edit } of lines) deepStrictEqual(edit.notes?.map((note) => `note: ${note}`), said);
  }),
);
