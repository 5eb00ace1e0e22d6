/** Calls that are wrong: each is refused with exit code 2 and one clear sentence. */
import { join } from "node:path";
import assert from "node:assert/strict";
import { inFolder } from "../engine/io/_data.ts";
import { EDIT, exists, refused, ROOT } from "./_run.ts";

/** The sound edit with some flags replaced. */
function editWith(flags: Record<string, string>): string[] {
  const args = [...EDIT];
  for (const [flag, value] of Object.entries(flags)) {
    const at = args.indexOf(flag);
    if (at < 0) args.push(flag, value);
    else args[at + 1] = value;
  }
  return args;
}

Deno.test("edit refuses a bad request when the flags make one", async () => {
  const cases: [Record<string, string>, RegExp][] = [
    [{ "--prompt": "he met death in" }, /subject that is not in its prompt: "Giovanni Lanfranco" in "he met/],
    [{ "--prompt": "{} and {} met in" }, /has 2 "\{\}" in its prompt; exactly one is allowed$/m],
    [{ "--prompt": "" }, /has an empty prompt$/m],
    [{ "--subject": "" }, /has an empty subject$/m],
    [{ "--target": " " }, /has an empty target$/m],
    [{ "--true": "" }, /has an empty true$/m],
    [{ "--requests": "cli.ts" }, /Give either --requests or --prompt, --subject and --target$/m],
  ];
  for (const [flags, message] of cases) await refused(editWith(flags), message);
  await refused(EDIT.slice(0, -2), /^error: --target is missing\nSee emend edit --help$/m);
});

Deno.test("names that do not exist are refused with the nearest one", async () => {
  const cases: [string[], RegExp][] = [
    [["edti"], /^error: unknown command 'edti'\n\(Did you mean edit\?\)$/m],
    [[...EDIT, "--dryrun"], /^error: unknown option '--dryrun'\n\(Did you mean --dry-run\?\)$/m],
    [
      ["generate", "--model", "atlas", "--promt", "x"],
      /^error: unknown option '--promt'\n\(Did you mean --prompt\?\)$/m,
    ],
    [["generate", "--prompt", "x"], /^error: required option '--model <M>' not specified$/m],
    [editWith({ "--method": "rmoe" }), /^error: Unknown method "rmoe"\nDid you mean rome\?$/m],
    [editWith({ "--set": "v_rl=1" }), /^error: r-rome has no hyper-parameter "v_rl"\nDid you mean v_lr\?$/m],
    [editWith({ "--set": "v_lr" }), /^error: --set wants key=value, got "v_lr"$/m],
    [
      editWith({ "--set": "v_lr=fast" }),
      /^error: The recipe with --set has a bad value for "v_lr": .*number.*string$/m,
    ],
    [editWith({ "--set": "layers=[6]" }), /^error: There is no layer 6: atlas has layers 0 to 5$/m],
    [editWith({ "--seed": "1.5" }), /^error: --seed wants a whole number from 0 to \d+, got "1\.5"$/m],
    [
      editWith({ "--model": "no/model" }),
      /^error: No such model: no\/model\nGive a folder with config\.json/m,
    ],
  ];
  for (const [args, message] of cases) await refused(args, message);
});

Deno.test("a prompt over the context is refused with both numbers", async () => {
  const long = "and so on ".repeat(80);
  const message = /has \d{3} tokens; the model's context holds 128$/m;
  await refused(["generate", "--model", "atlas", "--prompt", long], message);
  await refused([...editWith({ "--prompt": `${long}{} met death in` })], message);
  // It would fit alone, but not after a context of ten tokens.
  const tight = editWith({ "--prompt": `${"and so on ".repeat(37)}{} met death in` });
  await refused(
    [...tight, "--dry-run"],
    /^error: The prompt .* with a context and its target has 1\d\d tokens/,
  );
});

Deno.test("generate, stats and demo refuse values that make no sense", async () => {
  const generate = ["generate", "--model", "atlas"];
  const stats = ["stats", "--model", "atlas"];
  const cases: [string[], RegExp][] = [
    [generate, /^error: --prompt is missing$/m],
    [[...generate, "--prompt", ""], /^error: Cannot continue an empty prompt$/m],
    [[...generate, "--prompt", "x", "--max-tokens", "0"], /--max-tokens wants a whole number from 1 to/],
    [[...generate, "--prompt", "x", "--top-p", "2"], /--top-p wants a number from 0 to 1, got "2"$/m],
    [[...generate, "--prompt", "x", "--patch", "none"], /^error: No such file: none$/m],
    [[...generate, "--prompt", "x", "--patch", "cli.ts"], /^error: Cannot read cli\.ts: /],
    [[...stats, "--layers", "x", "--corpus", "cli.ts"], /--layers wants a whole number .* got "x"$/m],
    [[...stats, "--layers", "0,6", "--corpus", "cli.ts"], /^error: There is no layer 6: the model has 6$/m],
    [[...stats, "--layers", "1", "--corpus", "none"], /the corpus none: there is no such file$/m],
    [[...stats, "--layers", "1", "--corpus", "/dev/null"], /^error: \/dev\/null holds no text$/m],
    [["demo", "--case", "-1"], /^error: --case wants a whole number from 0 to 599, got "-1"$/m],
  ];
  for (const [args, message] of cases) await refused(args, message);
});

Deno.test("an output that cannot be written is refused before the model is looked at", async () => {
  await inFolder(async (folder) => {
    // There is no such model either: whoever looks for it first says so.
    const edit = (...flags: string[]) => [...editWith({ "--model": "no/model" }), ...flags];
    const file = join(folder, "file");
    await Deno.writeTextFile(file, "text");
    const full = join(folder, "full");
    await Deno.mkdir(full);
    await Deno.writeTextFile(join(full, "thesis.txt"), "the only copy");
    const cases: [string[], RegExp][] = [
      [edit("--out", join(file, "out")), /^error: Cannot write the folder .*\/out: Not a directory/],
      [edit("--peft", join(file, "peft")), /^error: Cannot write the folder .*\/peft: Not a directory/],
      [edit("--patch", join(file, "p")), /^error: Cannot write .*\/p: .*file is not a writable folder/],
      [edit("--patch", folder), /^error: Cannot write .*: it is a folder$/m],
      [edit("--patch", file), /^error: Cannot replace .*file: it is not a patch\nName a new file$/m],
      [edit("--out", full), /^error: Cannot replace the folder .*: it holds something other than a model\n/],
      [edit("--peft", full), /^error: Cannot replace the folder .*: it holds something other than a model\n/],
      [edit("--out", file), /^error: Cannot write the folder .*file: /],
      [edit("--out", join(folder, "x"), "--peft", join(folder, "x")), /--out and --peft name one folder$/m],
      [
        ["stats", "--model", "no/model", "--layers", "1", "--corpus", "cli.ts", "--out", file],
        /^error: Cannot replace .*file: it is not a statistics file\n/,
      ],
      [
        ["stats", "--model", "no/model", "--layers", "1,2", "--corpus", "cli.ts", "--out", file],
        /^error: Cannot write .*layer-1\.safetensors: .*file is not a writable folder/,
      ],
    ];
    for (const [args, message] of cases) await refused(args, message);
    assert.equal(await Deno.readTextFile(file), "text");
    assert.deepEqual((await Array.fromAsync(Deno.readDir(folder))).map((e) => e.name).sort(), [
      "file",
      "full",
    ]);
  });
});

Deno.test("edit refuses to write over its base model", async () => {
  await inFolder(async (folder) => {
    const base = join(folder, "base");
    await Deno.mkdir(base);
    for (const name of ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]) {
      await Deno.copyFile(join(ROOT, "atlas/model", name), join(base, name));
    }
    const edit = editWith({ "--model": base });
    const message = /^error: Cannot write the edited model to .*: its base model is there\nName another/;
    await refused([...edit, "--out", base], message);
    await refused([...edit, "--peft", base], message);
    await refused([...edit, "--patch", join(base, "model.safetensors")], /it is not a patch/);
    assert.ok(await exists(join(base, "model.safetensors")));
  });
});

Deno.test("a request file with a bad line is refused with the line's number", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "r.jsonl");
    const good = JSON.stringify({ prompt: "{} is in", subject: "Paris", target: "Italy" });
    const refuse = async (text: string, message: RegExp, name = path) => {
      await Deno.writeTextFile(name, text);
      await refused(["edit", "--model", "atlas", "--requests", name], message);
    };
    await refuse(`${good}\n\n{"prompt": \n${good}`, /^error: .*r\.jsonl line 3 is not JSON: /);
    await refuse(
      `${good}\n[1]`,
      /^error: .*r\.jsonl line 2 is not an object with prompt, subject and target$/m,
    );
    await refuse(`${good}\n{"prompt": "{} is"}`, /^error: .*r\.jsonl line 2 has no "subject"$/m);
    const astray = JSON.stringify({ prompt: "it is in", subject: "Paris", target: "Italy" });
    await refuse(`${good}\n${astray}`, /^error: .*r\.jsonl line 2 has a subject that is not in its prompt/);
    await refuse("\n", /^error: .*r\.jsonl holds no request$/m);
    const list = join(folder, "r.json");
    await refuse(
      `[${good}, {"prompt": 1}]`,
      /^error: Request 2 of .*r\.json has a "prompt" that is not/,
      list,
    );
    await refuse(`[${good}\n${good}]`, /^error: .*r\.json is not JSON: .*line 2/, list);
    await Deno.remove(list);
    await refused(["edit", "--model", "atlas", "--requests", list], /r\.json: there is no such file$/m);
  });
});
