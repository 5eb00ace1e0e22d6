import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { groupRuns } from "../../../evaluation/report/groups.ts";
import { htmlReport, isHtmlReport } from "../../../evaluation/report/html.ts";
import { casesOf } from "../../../evaluation/report/html_cases.ts";
import { escapeHtml, html } from "../../../evaluation/report/markup.ts";
import type { Run } from "../../../evaluation/report/load.ts";
import type { CaseLine, RunConfig } from "../../../evaluation/records.ts";
import { summarise } from "../../../evaluation/summarise.ts";
import { configOf, forced, lineOf, retainedOf } from "./_runs.ts";

const EVIL =
  `</td></script><script>alert(1)</script><img src="http://evil.example/x.png" onerror='alert(2)'>`;

function runOf(over: Partial<RunConfig>, lines: CaseLine[], sequential = false): Run {
  const indices = lines.map(({ index }) => index);
  const config = configOf({ indices, ...(sequential && { protocol: "sequential" as const }), ...over });
  const retained = sequential ? indices.map((index) => retainedOf(index, { ES: index % 2 })) : undefined;
  return {
    paths: ["runs/x"],
    config,
    lines,
    retained,
    summary: summarise(config, lines, retained, { total_s: 10 }),
    missing: 0,
  };
}

/** The page with hostile words wherever a run folder has words. */
function hostile(text: string): Run {
  const line = lineOf(0);
  return runOf(
    {
      method: text,
      recipe: text,
      adapter: text,
      model: { name: text, hash: text, type: text },
      dataset: { name: text, hash: text, layout: text, cases: 1 },
      hparams: { [text]: text },
      readings: [text],
      emend_version: text,
      statistics: [{ layer: 1, tokens: 1, corpus: text }],
    },
    [{
      ...line,
      id: text,
      requests: [{ prompt: `{} ${text}`, subject: text, target: text, true: text }],
      probes: [{
        kind: "rewrite",
        group: text,
        prompt: text,
        answers: [[text]],
        expect: "unchanged",
        rival: text,
      }],
      before: { probes: [{ answer: forced(text, 0.1), rival: forced(text, 0.1), text }], texts: [text] },
      after: { probes: [{ answer: forced(text, 0.1), rival: forced(text, 0.1), text }], texts: [text] },
      edit: {
        ...line.edit,
        warnings: [text],
        failed: text,
        changes: [{ role: text, frobenius: 1, relative: 1 }],
      },
      metrics: { before: { [text]: 1 }, after: { [text]: 1, [`easyedit.portability.${text}`]: 1 } },
      drift: { before: { [text]: 1 }, after: { [text]: 2 } },
    }],
  );
}

/** Tags and their attributes, as a browser would find them. */
function tagsOf(page: string): { name: string; attributes: string }[] {
  const body = page.replace(/<(script|style)>[\s\S]*?<\/\1>/g, "");
  return [...body.matchAll(/<([a-zA-Z][\w-]*)((?:\s+[^\s=>"]+(?:="[^"]*")?)*)\s*\/?>/g)].map((
    [, name, attributes],
  ) => ({
    name: name.toLowerCase(),
    attributes,
  }));
}

Deno.test("htmlReport() lets no word of a run act", async () => {
  const page = await htmlReport(groupRuns([hostile(EVIL)]));
  assert.equal(page.match(/<script\b/g)!.length, 1);
  assert.equal(page.match(/<\/script>/g)!.length, 1);
  const tags = tagsOf(page);
  assert.ok(
    !tags.some(({ name }) => ["img", "iframe", "object", "link", "base", "embed", "image"].includes(name)),
  );
  assert.ok(!tags.some(({ attributes }) => /\son\w+=/i.test(attributes.replace(/="[^"]*"/g, "="))));
  // Nothing is loaded: no address in an attribute but links within the page.
  const bare = tags.flatMap((
    { attributes },
  ) => [...attributes.matchAll(/\s(?:src|href|xlink:href|action)="([^"]*)"/g)]);
  assert.ok(bare.length > 0 && bare.every(([, address]) => address.startsWith("#")), String(bare));
  assert.doesNotMatch(page, /@import|url\((?!#)/);
  assert.equal(page.split("alert(1)").length, page.split("&lt;script&gt;alert(1)").length);
});

Deno.test("htmlReport() allows its own script and no other", async () => {
  const page = await htmlReport(groupRuns([runOf({}, [lineOf(0)])]));
  const script = page.match(/<script>([\s\S]*?)<\/script>/)![1];
  const hash = createHash("sha256").update(script).digest("base64");
  const policy = page.match(/Content-Security-Policy"\s+content="([^"]*)"/)![1].replaceAll("&#39;", "'");
  assert.equal(policy, `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'`);
  assert.ok(isHtmlReport(page) && page.startsWith("<!doctype html>"));
  assert.ok(!isHtmlReport("<!doctype html><title>mine</title>"));
});

Deno.test("htmlReport() leaves texts of other directions and scripts to themselves", async () => {
  const rtl = "שלום\u202e world", emoji = "👩‍👩‍👧 \ud83d lone\u0000null";
  const line = lineOf(0);
  line.after.probes[0].text = rtl;
  line.requests[0].subject = emoji;
  const page = await htmlReport(groupRuns([runOf({}, [line])]));
  assert.match(page, new RegExp(`<bdi>${rtl}</bdi>`), "isolated");
  assert.match(page, /<bdi>👩‍👩‍👧 \ufffd lone\ufffdnull lives in<\/bdi>/u);
  assert.ok(page.isWellFormed() && !page.includes("\0"));
});

Deno.test("htmlReport() shows what was run, the numbers, and each case before and after", async () => {
  const lines = [
    lineOf(0, { ES: 1, "easyedit.locality": 1 }),
    lineOf(1, { ES: 0, "easyedit.locality": 0.5 }),
  ];
  const page = await htmlReport(groupRuns([runOf({}, lines)]));
  const text = page.replace(/<(style|script)>[\s\S]*?<\/\1>/g, "").replace(/<[^>]+>/g, " ").replace(
    /\s+/g,
    " ",
  );
  for (
    const part of [
      "a".repeat(64),
      "d".repeat(64),
      "llvmpipe",
      "emend 0.1.0",
      "v_lr 0.5",
      "layer 5: 100000 tokens of wikitext.txt",
      "unedited 0.0 ± 0.0",
      "rome 50.0 ± 98.0",
      "75.0 ± 49.0",
      "failed Anna 1 lives in → Rome",
      "before 1.00 % 50.0 % ✗ 1.00 % ✗ 1.00 % Paris with her dog",
      "after 2.00 % 5.00 % ✓ 2.00 % ✗ 2.00 % Paris",
      "20 steps · loss 0.0500 · 2.00 s",
      "neighbour · should stay",
    ]
  ) assert.ok(text.includes(part), `${part} in ${text.slice(0, 20000)}`);
});

Deno.test("htmlReport() gives the same bytes for the same runs, and no id twice", async () => {
  const runs = () => [
    runOf({}, [0, 1, 2].map((i) => lineOf(i, { ES: 1, "easyedit.reliability": 0.5 }))),
    runOf(
      {},
      [0, 1, 2, 3].map((i) => lineOf(i, { ES: 1, "easyedit.reliability": 0.5 }, { restored: undefined })),
      true,
    ),
    runOf(
      { protocol: "batch", batch: 2 },
      [0, 1].map((i) => lineOf(i, { ES: 1, "easyedit.reliability": 0.5 })),
    ),
  ];
  const page = await htmlReport(groupRuns(runs()));
  assert.equal(await htmlReport(groupRuns(runs())), page);
  const ids = [...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  assert.deepEqual(ids.filter((id, i) => ids.indexOf(id) !== i), []);
  assert.match(page, /<b>Edits made together\.<\/b>/);
  assert.match(page, /<b>Forgetting\.<\/b>/);
});

Deno.test("casesOf() tells edits that were not made, failed, were forgotten and held", () => {
  const [a, b, c, d] = [0, 1, 2, 3].map((i) => lineOf(i, { ES: +(i !== 1) }));
  a.edit.failed = "NaN";
  const run = runOf({ protocol: "sequential" }, [a, b, c, d], true);
  const [{ runs }] = groupRuns([run]);
  assert.deepEqual(casesOf(runs).map(({ state }) => state), ["unmade", "failed", "forgotten", "held"]);
});

Deno.test("html`` escapes what it is given and keeps what is markup", () => {
  assert.equal(
    html`<b>${"<&\"'>"}</b>${[html`<i>1</i>`, html`${2}`]}${undefined}${false}`.markup,
    "<b>&lt;&amp;&quot;&#39;&gt;</b><i>1</i>2",
  );
  assert.equal(escapeHtml("a\u0007b\tc\nd"), "a\ufffdb\tc\nd");
});
