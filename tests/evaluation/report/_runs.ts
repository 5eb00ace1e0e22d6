/** Small run folders, made by hand, whose numbers a reader can check. */
import { join } from "node:path";
import type { CaseLine, Forced, Metrics, RetainedLine, RunConfig } from "../../../evaluation/records.ts";

/** A run's configuration; `over` replaces what a test is about. */
export function configOf(over: Partial<RunConfig> = {}): RunConfig {
  return {
    format: "emend-run",
    format_version: 1,
    emend_version: "0.1.0",
    model: { name: "tiny", hash: "a".repeat(64), type: "gpt2" },
    method: "rome",
    hparams: { layers: [5], v_lr: 0.5 },
    recipe: "ROME's own values for gpt2-xl",
    dataset: { name: "facts.json", layout: "CounterFact (ROME)", hash: "d".repeat(64), cases: 10 },
    protocol: "single",
    batch: 1,
    readings: ["forced", "generate", "drift"],
    seed: 0,
    statistics: [{ layer: 5, tokens: 100000, corpus: "wikitext.txt" }],
    adapter: "llvmpipe",
    indices: [3, 1, 2, 0],
    ...over,
  };
}

/** An answer of which the first `right` tokens are the likeliest, all of one probability. */
export function forced(text: string, p: number, right = 2, tokens = [11, 12]): Forced {
  return {
    text,
    tokens,
    logProbs: tokens.map(() => Math.log(p)),
    argmax: tokens.map((id, i) => i < right ? id : 99),
  };
}

/** A line: the edit of one fact. `after` are its metrics. */
export function lineOf(index: number, after: Metrics = { ES: 1 }, over: Partial<CaseLine> = {}): CaseLine {
  const took = after.ES !== 0;
  return {
    id: `case-${index}`,
    index,
    requests: [{ prompt: "{} lives in", subject: `Anna ${index}`, target: " Rome", true: " Paris" }],
    probes: [
      {
        kind: "rewrite",
        prompt: `Anna ${index} lives in`,
        answers: [["Rome"]],
        expect: "new",
        rival: "Paris",
      },
      { kind: "neighbour", prompt: "Ben lives in", answers: [["Paris"]], expect: "unchanged", rival: "Rome" },
    ],
    before: {
      probes: [
        { answer: forced("Rome", 0.01, 0), rival: forced("Paris", 0.5), text: " Paris with her dog" },
        { answer: forced("Paris", 0.4), rival: forced("Rome", 0.01, 0) },
      ],
    },
    after: {
      probes: [
        {
          answer: forced("Rome", took ? 0.9 : 0.02, took ? 2 : 1),
          rival: forced("Paris", 0.05),
          text: took ? " Rome" : " Paris",
        },
        { answer: forced("Paris", 0.3), rival: forced("Rome", 0.02, 0) },
      ],
    },
    edit: {
      steps: 20,
      loss: 0.05,
      warnings: [],
      changes: [{ role: "mlp.down.5", frobenius: 2, relative: 0.01 }],
    },
    metrics: { before: { ES: 0 }, after },
    restored: true,
    time_s: { edit: 2, evaluate: 1 },
    memory: { gpu_peak_bytes: 2 ** 30, host_bytes: 2 ** 29 },
    phases: {
      before: { time_s: 0.25, gpu_peak_bytes: 2 ** 28, host_bytes: 2 ** 28 },
      edit: { time_s: 2, gpu_peak_bytes: 2 ** 30, host_bytes: 2 ** 29 },
      after: { time_s: 0.75, gpu_peak_bytes: 2 ** 29, host_bytes: 2 ** 29 },
    },
    ...over,
  };
}

/** A case after the last edit. */
export function retainedOf(index: number, metrics: Metrics): RetainedLine {
  const { id, after } = lineOf(index);
  return { id, index, readings: after, metrics, time_s: { evaluate: 0.5 }, phases: {} };
}

/** Writes a run folder; what is a string is written as it is. */
export async function writeRun(
  path: string,
  config: RunConfig | string,
  lines: readonly CaseLine[] | string,
  retained?: readonly RetainedLine[],
): Promise<string> {
  await Deno.mkdir(path, { recursive: true });
  const jsonl = (list: readonly unknown[]) => list.map((line) => JSON.stringify(line) + "\n").join("");
  const text = typeof config === "string" ? config : JSON.stringify(config, null, 2) + "\n";
  await Deno.writeTextFile(join(path, "config.json"), text);
  await Deno.writeTextFile(join(path, "cases.jsonl"), typeof lines === "string" ? lines : jsonl(lines));
  if (retained) await Deno.writeTextFile(join(path, "retained.jsonl"), jsonl(retained));
  return path;
}

/** A folder for a test, removed after it. */
export async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "emend-report-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
