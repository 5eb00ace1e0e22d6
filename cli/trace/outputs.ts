/** What `trace` leaves: a folder of numbers and pictures, and a few lines on the terminal. */
import type { TraceAverages } from "../../editors/tracing/average.ts";
import type { TraceKind } from "../../editors/tracing/cells.ts";
import type { FactTrace, TraceResult } from "../../editors/tracing/trace.ts";
import { checkWritable, writeFileAtomic } from "../../engine/io/atomic.ts";
import { InputError } from "../../engine/io/errors.ts";
import { drawSvg, type Spec } from "../../evaluation/report/svg.ts";
import { averagesPicture, effectsPicture, factPicture } from "../../evaluation/tracing/pictures.ts";
import { drawPng } from "../../evaluation/tracing/png.ts";
import { percent, printJson, seconds as readable, table } from "../terminal.ts";

/** What was traced, for captions and reports. */
export interface About {
  model: string;
  dataset?: string;
  seconds: { load: number; trace: number };
}

/** Files of the folder. */
const RESULT = "trace.json", CASES = "cases.json";

/** What a trace's folder may hold. */
const OURS = /^(trace|cases)\.json$|^(heatmap|effects)\.(svg|png)$|^\..*\.tmp$/;

/**
 * Makes sure that the folder can be written and holds nothing but an earlier trace.
 * @throws {InputError} naming what is in the way
 */
export async function checkFolder(folder: string): Promise<void> {
  const names = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name).catch(() => []);
  const other = names.find((name) => !OURS.test(name));
  if (other) {
    throw new InputError(`Cannot write a trace to ${folder}: it holds "${other}"`, {
      hint: "Name a new folder",
    });
  }
  await checkWritable(`${folder}/${RESULT}`);
}

/** What must be equal for traces to belong together. */
type Settings = Pick<TraceResult, "noise" | "window" | "samples" | "seed" | "kinds"> & { model: string };

function settingsOf({ noise, window, samples, seed, kinds }: TraceResult, model: string): Settings {
  return { model, noise, window, samples, seed, kinds };
}

/** Writes every fact's numbers so far. */
export async function writeTraces(folder: string, result: TraceResult, model: string): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  await writeFileAtomic(
    `${folder}/${CASES}`,
    compact({ ...settingsOf(result, model), traces: result.traces }),
  );
}

/** An interrupted data set's traces with what they were made with. */
export interface Earlier {
  settings: Settings;
  traces: FactTrace[];
}

/** Reads the traces that an interrupted command left; undefined where there are none. */
export async function readTraces(folder: string): Promise<Earlier | undefined> {
  let text: string;
  try {
    text = await Deno.readTextFile(`${folder}/${CASES}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  try {
    const { traces, ...settings } = JSON.parse(text);
    if (!Array.isArray(traces)) throw new TypeError("it has no traces");
    return { settings, traces };
  } catch (error) {
    throw new InputError(`Cannot resume from ${folder}/${CASES}: ${(error as Error).message}`);
  }
}

/** @throws {InputError} when earlier traces were made otherwise, naming the setting */
export function requireSameSettings({ settings }: Earlier, result: TraceResult, model: string): void {
  for (const [key, now] of Object.entries(settingsOf(result, model))) {
    const before = settings[key as keyof Settings];
    if (JSON.stringify(before) !== JSON.stringify(now)) {
      throw new InputError(
        `Cannot resume: the traces have ${key} ${show(before)}, this call has ${show(now)}`,
        {
          hint: "Name a new folder, or give the same settings",
        },
      );
    }
  }
}

function show(value: unknown): string {
  return Array.isArray(value) ? value.join(", ") : String(value);
}

/**
 * Writes the numbers, then their pictures, each whole or not at all; an earlier trace's are gone before, so that
 * a folder's pictures are always of its numbers.
 * @returns the files' paths
 */
export async function writeResult(
  folder: string,
  { traces, ...result }: TraceResult,
  averages: TraceAverages | undefined,
  about: About,
): Promise<string[]> {
  const captions = { model: about.model, window: result.window };
  const facts = `${traces.length} facts of ${about.dataset}`;
  const pictures: Record<string, Spec> = averages
    ? {
      heatmap: averagesPicture(averages, facts, captions),
      effects: effectsPicture(averages, facts, captions),
    }
    : { heatmap: factPicture(traces[0], captions) };
  const numbers = { ...about, ...result, ...(averages ? { averages } : traces[0]) };
  const files = [RESULT, ...averages ? [CASES] : []];
  const drawn = Object.keys(pictures).flatMap((name) => [`${name}.svg`, `${name}.png`]);
  await Deno.mkdir(folder, { recursive: true });
  for await (const { name } of Deno.readDir(folder)) {
    if (OURS.test(name) && !files.includes(name)) await Deno.remove(`${folder}/${name}`);
  }
  await writeFileAtomic(`${folder}/${RESULT}`, compact(numbers));
  for (const [name, spec] of Object.entries(pictures)) {
    const svg = await drawSvg(spec, name, "paper"), png = await drawPng(svg);
    await writeFileAtomic(`${folder}/${name}.svg`, svg);
    await writeFileAtomic(`${folder}/${name}.png`, png);
  }
  return [...files, ...drawn].map((name) => `${folder}/${name}`);
}

/** JSON with an innermost list of numbers a line. */
function compact(value: unknown): string {
  const text = JSON.stringify(value, null, 1);
  return `${text.replace(/\[\s+([-\d.e+,\s]+?)\s+\]/g, (_, list) => `[${list.replace(/,\s+/g, ", ")}]`)}\n`;
}

/** Prints the trace for people, or as one JSON object. */
export function printTraces(
  result: TraceResult,
  averages: TraceAverages | undefined,
  files: readonly string[],
  { json, ...about }: About & { json?: boolean },
): void {
  const { traces, unknown, noise, window } = result;
  if (json) return printJson({ ...about, ...result, averages, files });
  const what = averages ? `${traces.length} facts` : `“${traces[0].prompt}” → “${traces[0].answer.trim()}”`;
  console.log(`${what}, noise ν = ${noise.toPrecision(3)}, ${readable(about.seconds.trace)}`);
  if (unknown.length) console.log(`${unknown.length} facts are left out: the model answers otherwise`);
  if (averages) {
    const { clean, corrupted, total } = averages;
    console.log(
      `P ${percent(clean.mean)}, corrupted ${percent(corrupted.mean)}, total effect ${percent(total.mean)} ` +
        `± ${percent(total.ci95)}\n`,
    );
    const rows = Object.entries(averages.kinds).map(([kind, { peak: { token, layer, effect }, largest }]) => [
      nameOf(kind as TraceKind, window),
      `${percent(effect.mean)} ± ${percent(effect.ci95)}`,
      token,
      String(layer),
      percent(largest.mean),
    ]);
    console.log(table([["restored", "largest AIE", "at", "layer", "mean of maxima"], ...rows]));
  } else {
    const [{ clean, corrupted, tokens, scores }] = traces;
    console.log(`P ${percent(clean)}, corrupted ${percent(corrupted)}\n`);
    const rows = Object.entries(scores).map(([kind, grid]) => {
      const best = grid.flatMap((row, token) => row.map((p, layer) => ({ p, token, layer })))
        .reduce((a, b) => b.p > a.p ? b : a);
      return [
        nameOf(kind as TraceKind, window),
        percent(best.p),
        tokens[best.token].trim(),
        String(best.layer),
      ];
    });
    console.log(table([["restored", "largest P", "token", "layer"], ...rows]));
  }
  console.log(`\nwritten: ${files.join(", ")}`);
}

function nameOf(kind: TraceKind, window: number): string {
  const names: Record<TraceKind, string> = {
    "state": "state",
    "mlp": `MLPs of ${window} layers`,
    "attn": `attentions of ${window} layers`,
    "state-no-mlp": "state, MLPs severed",
    "state-no-attn": "state, attention severed",
  };
  return names[kind];
}
