/** What the tests of data sets share. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Dataset, EditCase } from "../../../evaluation/cases.ts";
import type { LayoutOptions } from "../../../evaluation/datasets/layout.ts";
import { parseDataset } from "../../../evaluation/datasets/read.ts";

/** Reads records as a file would hold them. */
export function parse(records: unknown, options?: LayoutOptions, name = "x.json"): Dataset {
  return parseText(JSON.stringify(records, null, 1), name, options);
}

/** Reads the text of a file. */
export function parseText(text: string, name = "x.json", options?: LayoutOptions): Dataset {
  return parseDataset(name, new TextEncoder().encode(text), options);
}

/** A case's probes in short: "kind prompt => answers [rival] expect". */
export function brief({ probes }: EditCase): string[] {
  return probes.map(({ kind, group, prompt, answers, rival, expect }) =>
    `${kind}${group ? `:${group}` : ""} ${prompt} => ${answers.map((any) => any.join("|")).join(" & ")}` +
    `${rival === undefined ? "" : ` not ${rival}`} (${expect})`
  );
}

/** How many probes there are of each kind. */
export function kinds({ cases }: Dataset): Record<string, number> {
  const out: Record<string, number> = {};
  for (const { kind } of cases.flatMap(({ probes }) => probes)) out[kind] = (out[kind] ?? 0) + 1;
  return out;
}

/** A test on real files beside the repository; skipped where they are not. */
export function testReal(file: string, name: string, run: (path: string) => Promise<void>): void {
  const path = join(fileURLToPath(new URL("../../../../shared/data", import.meta.url)), file);
  let there = true;
  try {
    Deno.statSync(path);
  } catch {
    there = false;
    console.log(`skipped: ${name} (needs ../shared/data/${file})`);
  }
  Deno.test({ name, ignore: !there, fn: () => run(path) });
}
