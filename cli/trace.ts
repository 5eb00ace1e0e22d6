/** `emend trace`: where a model recalls a fact, by causal tracing; heat maps, averages and all numbers. */
import { Command } from "npm:commander@15.1.0";
import { averageTraces } from "../editors/tracing/average.ts";
import { TRACE_KINDS, type TraceKind } from "../editors/tracing/cells.ts";
import { trace, type TraceResult } from "../editors/tracing/trace.ts";
import { InputError } from "../engine/io/errors.ts";
import { stopwatch } from "../evaluation/stopwatch.ts";
import { number } from "./inputs.ts";
import { openSession } from "./model.ts";
import { progress } from "./terminal.ts";
import { commonSubjects, readFacts } from "./trace/facts.ts";
import {
  checkFolder,
  printTraces,
  readTraces,
  requireSameSettings,
  writeResult,
  writeTraces,
} from "./trace/outputs.ts";

const HELP = `
The folder gets trace.json with all numbers, heatmap.svg and heatmap.png; for a data set these show averages by
class of tokens, effects.svg and effects.png show them by layer with intervals, and cases.json has every fact; --resume goes on with them.

Examples:
  deno run -A cli.ts trace --model atlas --prompt "The first language of Danielle Darrieux is" \\
    --subject "Danielle Darrieux"
  deno run -A cli.ts trace --model M --dataset known-605.json --limit 50 --severed --out traces/known

Facts that the model answers otherwise are left out of a data set. Tracing says where states matter, not which
layer is best to edit (Hase et al. 2023): see emend recipe suggest.`;

/** Flags of the command. */
export interface TraceFlags {
  model: string;
  prompt?: string;
  subject?: string;
  answer?: string;
  dataset?: string;
  limit: string;
  severed?: boolean;
  kind: string[];
  window?: string;
  noise: string;
  samples: string;
  seed: string;
  out: string;
  resume?: boolean;
  json?: boolean;
}

export function traceCommand(): Command {
  return new Command("trace")
    .description("Where a model recalls a fact: causal tracing of states, MLPs and attention")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .option("--prompt <text>", "a text that the model continues with the fact; {} may stand for the subject")
    .option("--subject <text>", "the subject, as the prompt has it")
    .option("--answer <text>", "what the model should say; by default whatever it says")
    .option("--dataset <file>", "many facts instead: known-605.json, atlas, or any data set that eval reads")
    .option("--limit <n>", "facts of a data set at most, of those that the model knows", "50")
    .option("--kind <kind>", `only this kind, of ${TRACE_KINDS.join(", ")}; may be repeated`, add, [])
    .option("--severed", "also with the MLPs, and with the attention, at the token held to the corrupted run")
    .option("--window <n>", "layers of a window of modules (default: half of the model's, 10 at most)")
    .option("--noise <size>", "3s: in standard deviations of the subjects' embeddings; 0.1: as it is", "3s")
    .option("--samples <n>", "draws of noise", "10")
    .option("--seed <n>", "of the noise; 1 gives the authors' draws", "1")
    .option("--out <folder>", "where the files go", "trace")
    .option("--resume", "go on with a data set's trace that the folder holds")
    .option("--json", "print one JSON object")
    .addHelpText("after", HELP)
    .action((flags: TraceFlags) => runTrace(flags));
}

const add = (value: string, list: string[]) => [...list, value];

async function runTrace(flags: TraceFlags): Promise<void> {
  const options = {
    kinds: kindsOf(flags),
    window: flags.window === undefined ? undefined : number("--window", flags.window, 1, 1000, true),
    samples: number("--samples", flags.samples, 1, 1000, true),
    seed: number("--seed", flags.seed, 0, 2 ** 32 - 1, true),
    limit: number("--limit", flags.limit, 1, 1e6, true),
    ...noiseOf(flags.noise),
  };
  const facts = await factsOf(flags);
  await checkFolder(flags.out);
  const earlier = flags.resume && facts.name !== undefined ? await readTraces(flags.out) : undefined;
  using session = await openSession(flags.model);
  const { model, loadSeconds } = session;
  const clock = stopwatch();
  const name = flags.model.split("/").at(-1)!;
  let result: TraceResult;
  {
    using bar = progress("Tracing");
    result = await trace(model, facts.requests, {
      ...options,
      // A single prompt's subject is too little to say how large embeddings of subjects are.
      subjects: facts.name === undefined && options.noise === undefined ? await commonSubjects() : undefined,
      done: earlier?.traces,
      onStart: (result) => earlier && requireSameSettings(earlier, result, name),
      onProgress: (now, total) => bar.update(Math.round(1000 * now), 1000 * total),
      async onTrace(_, result) {
        if (facts.name !== undefined) await writeTraces(flags.out, result, name);
      },
    });
  }
  const seconds = { load: loadSeconds, trace: clock() };
  if (result.traces.length === 0) {
    const [first] = result.unknown;
    throw new InputError(
      facts.name === undefined
        ? `The model does not say "${first.expected}" after "${first.prompt}" but "${first.says}"`
        : `The model knows none of the ${facts.requests.length} facts of ${facts.name}`,
      { hint: facts.name === undefined ? "Leave --answer out to trace what it says" : undefined },
    );
  }
  const about = { model: name, dataset: facts.name, seconds };
  const averages = facts.name === undefined ? undefined : averageTraces(result.traces);
  const files = await writeResult(flags.out, result, averages, about);
  printTraces(result, averages, files, { json: flags.json, ...about });
}

function kindsOf({ kind, severed }: TraceFlags): TraceKind[] {
  for (const name of kind) {
    if (!(TRACE_KINDS as readonly string[]).includes(name)) {
      throw new InputError(`There is no kind of trace "${name}"`, {
        hint: `There are ${TRACE_KINDS.join(", ")}`,
      });
    }
  }
  const wanted = new Set(kind.length ? kind : TRACE_KINDS.slice(0, 3));
  if (severed) TRACE_KINDS.slice(3).forEach((name) => wanted.add(name));
  return TRACE_KINDS.filter((name) => wanted.has(name));
}

function noiseOf(text: string): { noise?: number; deviations?: number } {
  const [, value, unit] = /^([\d.]+(?:e-?\d+)?)(s?)$/.exec(text.trim()) ?? [];
  const size = Number(value);
  if (!(size > 0)) throw new InputError(`--noise wants a size such as 3s or 0.1, got "${text}"`);
  return unit ? { deviations: size } : { noise: size };
}

async function factsOf(flags: TraceFlags) {
  const { prompt, subject, answer, dataset } = flags;
  if (dataset !== undefined) {
    if (prompt !== undefined) throw new InputError("--prompt and --dataset do not go together");
    return await readFacts(dataset);
  }
  if (prompt === undefined || subject === undefined) {
    const missing = prompt === undefined ? "--prompt" : "--subject";
    throw new InputError(`${missing} is missing`, { hint: "Give --prompt and --subject, or --dataset" });
  }
  return { name: undefined, requests: [{ prompt, subject, answer }] };
}
