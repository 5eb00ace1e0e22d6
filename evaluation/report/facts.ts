/** What was run, as names and values: the part of a report that makes its numbers mean something. */
import { isObject } from "../../engine/io/json.ts";
import { type Phase, PHASES, type Summary } from "../records.ts";
import type { LabelledRun } from "./groups.ts";
import { protocolTitle } from "./groups.ts";

/** Rows of a run's description, in order. Values are plain text. */
export function factsOf(run: LabelledRun): { name: string; value: string }[] {
  const { config, summary, lines, missing, paths } = run;
  const { model, dataset, protocol, batch, seed, adapter, emend_version, statistics, readings } = config;
  const failed = lines.filter(({ edit }) => edit.failed !== undefined).length;
  const wanted = config.indices.length;
  const facts: Record<string, string | undefined> = {
    Method: config.method,
    Recipe: config.recipe,
    Model: `${model.name} (${model.type}), SHA-256 ${model.hash}`,
    Dataset: `${dataset.name} (${dataset.layout}, ${dataset.cases} cases), SHA-256 ${dataset.hash}`,
    Protocol: protocolTitle(protocol) + (batch > 1 ? `, ${batch} together` : ""),
    Cases: missing ? `${lines.length} of ${wanted}, incomplete` : String(wanted),
    "Edits not made": failed ? `${failed}; they count as unedited` : undefined,
    "Weights restored": summary.restored === undefined
      ? undefined
      : summary.restored
      ? "bit for bit after every edit"
      : "not after every edit",
    Seed: String(seed),
    Statistics:
      statistics.map(({ layer, tokens, corpus }) => `layer ${layer}: ${tokens} tokens of ${corpus}`).join(
        "; ",
      ) || undefined,
    Readings: readings.join(", "),
    Adapter: adapter,
    Time: `${summary.time_s.total.toFixed(0)} s in all, ` +
      `${(100 * summary.time_s.outside_editing).toFixed(0)} % of the work outside of editing`,
    "Targets from the cache": summary.cached_targets
      ? `${summary.cached_targets}; the time of editing is not the method's`
      : undefined,
    ...Object.fromEntries(phasesOf(summary)),
    "Made with": `emend ${emend_version}`,
    Folder: paths.map((path) => path.replace(/\/+$/, "").split("/").at(-1)).join(", "),
  };
  return Object.entries(facts).flatMap(([name, value]) => value === undefined ? [] : [{ name, value }]);
}

/** A row for every phase: seconds a case, highest memory of the device, resident memory of the process. */
function phasesOf({ phases }: Summary): [string, string][] {
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  return PHASES.flatMap((phase): [string, string][] => {
    const cost = phases[phase];
    if (!cost) return [];
    const { time_s, gpu_peak_bytes, host_bytes } = cost;
    const value = `${time_s.toFixed(2)} s a case, device ${mib(gpu_peak_bytes)}, host ${mib(host_bytes)}`;
    return [[PHASE_TITLES[phase], value]];
  });
}

const PHASE_TITLES: Record<Phase, string> = {
  before: "Reading before",
  edit: "Editing",
  after: "Reading after",
  elsewhere: "Drift elsewhere",
  restore: "Restoring, proven",
  retained: "Reading at the end",
};

/** Hyper-parameters as text, nested ones dotted. */
export function hparamsOf(run: LabelledRun): { name: string; value: string }[] {
  const flat = (values: Record<string, unknown>, prefix: string): { name: string; value: string }[] =>
    Object.entries(values).flatMap(([key, value]) =>
      isObject(value)
        ? flat(value, `${prefix}${key}.`)
        : [{ name: prefix + key, value: typeof value === "string" ? value : JSON.stringify(value) ?? "none" }]
    );
  return flat(run.config.hparams, "");
}
