/** Training files: their layouts, and the lines that cannot be trained with. */
import { deepStrictEqual, notStrictEqual, ok, rejects } from "node:assert/strict";
import { join } from "node:path";
import { exampleAt } from "../../training/source.ts";
import { fileSources } from "../../training/records.ts";
import { fileSeracRecords } from "../../training/serac_records.ts";
import { withheld } from "../../training/without.ts";
import { inFolder } from "../engine/io/_data.ts";

const GOOD = {
  src: "Who wrote A?",
  pred: "B",
  alt: "C",
  rephrase: ["By whom is A?", "A is by whom?"],
  loc: "nq question: where is D",
  loc_ans: "E",
};

async function written(folder: string, records: unknown[]): Promise<string> {
  const path = join(folder, "train.jsonl");
  await Deno.writeTextFile(path, records.map((record) => JSON.stringify(record)).join("\n"));
  return path;
}

Deno.test("a record of MEND's zsRE becomes edit, other wording, and what must stay", () =>
  inFolder(async (folder) => {
    const path = await written(folder, Array.from({ length: 24 }, () => GOOD));
    const { train, validation } = await fileSources(path);
    deepStrictEqual([train.count, validation.count], [22, 2]);
    const { outer, ...rest } = exampleAt(train, 0, 5);
    ok(GOOD.rephrase.includes(outer.prompt) && outer.answer === "C");
    deepStrictEqual(rest, {
      edit: { prompt: GOOD.src, answer: "C" },
      loc: { prompt: "where is D?", answer: "E" },
      before: "B",
    });
    deepStrictEqual(exampleAt(train, 0, 5), exampleAt(train, 0, 5));
  }));

Deno.test("records without loc or alt are refused with their lines", () =>
  inFolder(async (folder) => {
    const { loc: _, ...lacking } = GOOD;
    const path = await written(folder, [GOOD, lacking, { ...GOOD, alt: "" }, GOOD, lacking, {
      ...GOOD,
      loc: " ",
    }]);
    await rejects(fileSources(path), {
      message:
        'train.jsonl cannot be trained with. lines 2, 5: the record has no "loc"; line 3: the record has ' +
        'an empty "alt"; line 6: the record has an empty "loc"',
    });
    const told: string[] = [];
    const { train, validation } = await fileSources(path, {
      skipIncomplete: true,
      note: (text) => told.push(text),
    });
    deepStrictEqual([train.count, validation.count], [1, 1]);
    deepStrictEqual(told, [
      'left out of train.jsonl: lines 2, 5: the record has no "loc"; line 3: the record has an empty "alt"; ' +
      'line 6: the record has an empty "loc"',
    ]);
    const array = join(folder, "array.json");
    await Deno.writeTextFile(array, JSON.stringify([GOOD, lacking, GOOD, lacking]));
    await rejects(
      fileSources(array),
      /^InputError: array.json cannot be trained with. numbers 2, 4: the record/,
    );
    await rejects(
      fileSources(await written(folder, [lacking, lacking]), { skipIncomplete: true }),
      /cannot be trained with\. lines 1, 2/,
    );
    await rejects(
      fileSources(await written(folder, [{ question: "?" }])),
      /in no layout that editors are trained/,
    );
    await rejects(fileSources(await written(folder, [GOOD])), /holds one record/);
  }));

Deno.test("records about what another dataset edits are left out, whatever its layout", () =>
  inFolder(async (folder) => {
    const tested = join(folder, "tested.jsonl");
    await Deno.writeTextFile(
      tested,
      [
        { prompt: "Who wrote {}?", subject: "Iliad", target: "Virgil" },
        { prompt: "{} is in", subject: "Rome", target: "Gaul" },
      ].map((record) => JSON.stringify(record)).join("\n"),
    );
    const bySubject = { ...GOOD, src: "Where is Rome?", subject: "rome" };
    const byPrompt = { ...GOOD, src: "Who wrote Iliad?" };
    const path = await written(folder, [GOOD, bySubject, GOOD, byPrompt, GOOD]);
    const without = await withheld([tested]);
    const told: string[] = [];
    const { train, validation } = await fileSources(path, { without, note: (text) => told.push(text) });
    deepStrictEqual([train.count, validation.count], [2, 1]);
    deepStrictEqual(told, ["left out of train.jsonl: 2 records about what tested.jsonl edits"]);
    notStrictEqual(train.hash, (await fileSources(path)).train.hash, "another training");
    const nothing = await written(folder, [bySubject, byPrompt]);
    await rejects(fileSources(nothing, { without }), /holds nothing but what tested.jsonl edits/);
  }));

Deno.test("SERAC's records: a fact in its wordings; without a subject or a truth they are refused with their lines", () =>
  inFolder(async (folder) => {
    const own = { ...GOOD, subject: "A" };
    deepStrictEqual(await fileSeracRecords(await written(folder, [own, own])), [{
      subject: "A",
      kind: "Who wrote {}?",
      answer: "B",
      wordings: [GOOD.src, ...GOOD.rephrase],
      targets: ["C"],
    }]);
    const { pred: _, ...untold } = own;
    const path = await written(folder, [
      own,
      GOOD,
      { ...own, loc: "" },
      { ...untold, answers: ["B"] },
      untold,
    ]);
    await rejects(fileSeracRecords(path), {
      message:
        'train.jsonl cannot be trained with. line 2: the record has no "subject"; line 3: the record has an ' +
        'empty "loc"; line 5: the record does not say what is true now',
    });
  }));
