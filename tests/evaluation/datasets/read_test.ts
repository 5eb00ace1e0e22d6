/** Reading files as a whole: lines, hashes, samples, downloads, and what is printed about them. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { describeDataset } from "../../../evaluation/datasets/describe.ts";
import { readDataset, sampleCases } from "../../../evaluation/datasets/read.ts";
import { inFolder } from "../../engine/io/_data.ts";
import { parse, parseText } from "./_files.ts";

const fact = (n: number) => ({
  id: `f${n}`,
  prompt: `{} has number ${n} in`,
  subject: `S${n}`,
  target: `T${n}`,
});

Deno.test("lines are those of the file: arrays, JSONL, objects over several lines, CSV with breaks in cells", () => {
  const lines = (text: string, name?: string) => parseText(text, name).cases.map(({ line }) => line);
  const [a, b, c] = [1, 2, 3].map((n) => JSON.stringify(fact(n)));
  assert.deepEqual(lines(`[\n${a},\n\n${b}, ${c}\n]`), [2, 4, 4]);
  assert.deepEqual(lines(`\n${a}\n\n${b}\n${c}`, "x.jsonl"), [2, 4, 5]);
  assert.deepEqual(lines(`{\n"prompt": "{} is",\n"subject": "a", "target": "b" }\n${b}`), [1, 4]);
  assert.deepEqual(lines(JSON.stringify(fact(1), null, 2)), [1]);
  const csv = 'prompt,subject,target\n{} is,a,"b\nc"\n\n"{} is",d,e\n';
  assert.deepEqual(lines(csv, "x.csv"), [2, 5]);
  assert.deepEqual(lines(csv.replaceAll("\n", "\r\n"), "x.csv"), [2, 5]);
  assert.deepEqual(lines(csv.replaceAll(",", "\t"), "x.tsv"), [2, 5]);
  assert.deepEqual(lines(csv.replaceAll(",", ";"), "x.txt"), [2, 5]);
});

Deno.test("a byte-order mark and CRLF change nothing but the hash", () => {
  const text = JSON.stringify([fact(1), fact(2)], null, 1);
  const plain = parseText(text), odd = parseText(`\ufeff${text.replaceAll("\n", "\r\n")}\r\n`);
  assert.deepEqual(odd.cases, plain.cases);
  assert.notEqual(odd.hash, plain.hash);
  assert.equal(plain.hash, createHash("sha256").update(text).digest("hex"));
});

Deno.test("ids are unique: repeated ones get a number, missing ones are the position", () => {
  const { id: _, ...anonymous } = fact(9);
  const same = (id: string) => ({ ...fact(1), id });
  const dataset = parse([same("a"), same("a#2"), same("a"), same("a"), anonymous]);
  assert.deepEqual(dataset.cases.map(({ id }) => id), ["a", "a#2", "a#3", "a#4", "4"]);
  assert.match(dataset.notes.join("\n"), /2 records \(lines 14, 20\): the id of an earlier record/);
});

Deno.test("sampleCases takes the first ones, or with a seed a choice that a larger limit extends", () => {
  const dataset = parse(Array.from({ length: 50 }, (_, n) => fact(n)));
  const ids = (options: object) => sampleCases(dataset, options).map(({ id }) => id);
  assert.deepEqual(ids({ limit: 3 }), ["f0", "f1", "f2"]);
  assert.equal(ids({}).length, 50);
  assert.equal(ids({ limit: 99 }).length, 50);
  const ten = ids({ limit: 10, seed: 5 });
  assert.deepEqual(ids({ limit: 20, seed: 5 }).slice(0, 10), ten);
  assert.notDeepEqual(ids({ limit: 10, seed: 6 }), ten);
  assert.equal(new Set(ids({ seed: 5 })).size, 50);
  assert.notDeepEqual(ten, ids({ limit: 10 }));
});

Deno.test("describeDataset says what there is, what is left out and where, and what cannot be measured", () => {
  const bad = { prompt: "{} is", subject: "x" };
  const dataset = parse([fact(1), ...Array(7).fill(bad), { ...fact(1), id: "again" }]);
  const lines = describeDataset(dataset);
  assert.match(lines[0], /^x\.json: facts \(prompt, subject, target\), sha256 [0-9a-f]{16}$/);
  assert.equal(lines[1], "9 records, 2 cases with 2 edits and 2 probes");
  assert.equal(
    lines[2],
    'left out: 7 records (lines 8, 12, 16, 20, 24 and 2 more): The record has no "target"',
  );
  assert.equal(lines[3], "repeated edits: again repeats f1");
  assert.match(lines.join("\n"), /^metrics: fluency, easyedit\.reliability$/m);
  assert.match(lines.join("\n"), /^no ES, EM, Score: no true answer/m);
  const oneLine = describeDataset(parseText(JSON.stringify([bad, fact(1), bad])));
  assert.match(oneLine.join("\n"), /2 records \(numbers 1, 3\)/);
});

Deno.test("atlas and atlas-zsre are there by name", async () => {
  const [a, z] = [await readDataset("atlas"), await readDataset("atlas-zsre")];
  assert.deepEqual([a.name, a.layout, a.total, a.unusable.length], ["atlas", "CounterFact (ROME)", 600, 0]);
  assert.deepEqual([z.layout, z.total, z.unusable.length], ["zsRE (MEND)", 400, 0]);
  assert.equal(
    a.cases.flatMap(({ probes }) => probes).filter(({ group }) => group === "two-hop").length,
    362,
  );
  const bytes = await Deno.readFile(new URL("../../../atlas/data/counterfact.json", import.meta.url));
  assert.equal(a.hash, createHash("sha256").update(bytes).digest("hex"));
});

/** Reads with the published data coming from elsewhere, and with an empty cache. */
async function published(endpoint: string, run: (cache: string) => Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    const set = { EMEND_DATA_ENDPOINT: endpoint, XDG_CACHE_HOME: folder };
    const before = Object.keys(set).map((name) => [name, Deno.env.get(name)] as const);
    try {
      for (const [name, value] of Object.entries(set)) Deno.env.set(name, value);
      await run(join(folder, "emend", "datasets"));
    } finally {
      for (const [name, value] of before) {
        if (value === undefined) Deno.env.delete(name);
        else Deno.env.set(name, value);
      }
    }
  });
}

Deno.test("counterfact and zsre are fetched once", async () => {
  const body = JSON.stringify([fact(1), fact(2)]), asked: string[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, ({ url }) => {
    asked.push(new URL(url).pathname);
    return new Response(body);
  });
  await published(`http://127.0.0.1:${server.addr.port}/`, async (cache) => {
    const steps: number[] = [];
    const first = await readDataset("counterfact", { progress: (done) => steps.push(done) });
    const second = await readDataset("counterfact");
    assert.deepEqual(second, first);
    assert.equal(first.name, "counterfact");
    assert.equal(steps.at(-1), body.length);
    await readDataset("zsre");
    assert.deepEqual(asked, ["/data/dsets/counterfact.json", "/data/dsets/zsre_mend_eval.json"]);
    const kept = await Array.fromAsync(Deno.readDir(cache), ({ name }) => name);
    assert.deepEqual(kept.sort(), ["counterfact.json", "zsre_mend_eval.json"]);
  });
  await server.shutdown();
});

/** What a server sends, and why the download then fails. */
const FAILURES: [name: string, sent: string, why: RegExp][] = [
  ["an error status", "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno", /: HTTP 503$/],
  [
    "a body that is cut off",
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{",
    /: the connection broke after \d+ bytes/,
  ],
  ["nonsense", "hello\r\n\r\n", /: /],
];

for (const [name, sent, why] of FAILURES) {
  Deno.test(`a download that ends in ${name} fails with its address and leaves nothing behind`, async () => {
    const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
    const serving = (async () => {
      for await (const connection of listener) {
        await connection.read(new Uint8Array(4096));
        await connection.write(new TextEncoder().encode(sent));
        connection.close();
      }
    })();
    await published(`http://127.0.0.1:${listener.addr.port}`, async (cache) => {
      await assert.rejects(readDataset("counterfact"), (error: Error & { hint?: string }) => {
        assert.equal(error.name, "InputError");
        assert.match(
          error.message,
          /^Cannot fetch counterfact from http:.*\/data\/dsets\/counterfact\.json: /,
        );
        assert.match(error.message, why);
        assert.match(error.hint!, /give --dataset the path/);
        return true;
      });
      assert.deepEqual(await Array.fromAsync(Deno.readDir(cache)).catch(() => []), []);
    });
    listener.close();
    await serving;
  });
}

Deno.test("without a network the error names the address and what else can be done", async () => {
  // A port that nothing listens on.
  await published("http://127.0.0.1:9", async () => {
    const error = /Cannot fetch zsre from http:\/\/127\.0\.0\.1:9\/data\/dsets\/zsre_mend_eval\.json: /;
    await assert.rejects(readDataset("zsre"), error);
  });
});
