/**
 * Shards into runs. Shards belong together when their configurations are the same but for the shard's number
 * and the adapter, when no case is in two of them, and when all cases of the run are there.
 */
import { InputError } from "../../engine/io/errors.ts";
import { brief, difference } from "../difference.ts";
import type { RunConfig } from "../records.ts";
import type { Folder, Run } from "./load.ts";

/** A run before it is summarised. */
export type Merged = Omit<Run, "summary"> & { total_s: number };

/**
 * Merges shards; whole runs stay as they are. In the order in which the folders are given.
 * @param partial show runs of which cases are missing
 * @throws {InputError} one sentence: what differs, overlaps or is missing
 */
export function mergeShards(folders: readonly Folder[], partial: boolean): Merged[] {
  const groups: Folder[][] = [];
  for (const folder of folders) {
    const home = folder.config.shard &&
      groups.find(([first]) =>
        first.config.shard && difference(comparable(first.config), comparable(folder.config)) === undefined
      );
    if (home) home.push(folder);
    else groups.push([folder]);
  }
  const merged = groups.map(merge);
  if (!partial) {
    const incomplete = merged.findIndex(({ missing }) => missing > 0);
    if (incomplete >= 0) refuseIncomplete(groups, merged, incomplete);
  }
  return merged;
}

/** What shards of one run have in common. */
function comparable(config: RunConfig): Record<string, unknown> {
  return { ...config, adapter: undefined, shard: { of: config.shard?.of } };
}

function merge(group: Folder[]): Merged {
  const config = mergedConfig(group);
  if (group[0].config.shard) checkTogether(group);
  const position = new Map(config.indices.map((index, at) => [index, at]));
  const inOrder = <Line extends { index: number }>(lines: Line[]) =>
    lines.toSorted((a, b) => position.get(a.index)! - position.get(b.index)!);
  const lines = inOrder(group.flatMap(({ lines }) => lines));
  const retained = inOrder(group.flatMap(({ retained }) => retained ?? []));
  const sequential = config.protocol.startsWith("sequential");
  const there = sequential ? Math.min(lines.length, retained.length) : lines.length;
  return {
    paths: group.map(({ path }) => path),
    config,
    lines,
    ...(retained.length && { retained }),
    missing: config.indices.length - there,
    total_s: group.reduce((sum, folder) => sum + (folder.total_s ?? measured(folder)), 0),
  };
}

/** The configuration of the whole run: no shard, and all adapters that worked on it. */
function mergedConfig(group: readonly Folder[]): RunConfig {
  const { shard: _, ...config } = group[0].config;
  const adapters = [...new Set(group.map(({ config }) => config.adapter))].sort();
  return { ...config, adapter: adapters.join(" + ") };
}

/** Seconds that the lines account for, where a run has no end. */
function measured({ lines, retained }: Folder): number {
  const first = lines.reduce((sum, { time_s }) => sum + time_s.edit + time_s.evaluate, 0);
  return (retained ?? []).reduce((sum, { time_s }) => sum + time_s.evaluate, first);
}

function checkTogether(group: readonly Folder[]): void {
  const { protocol } = group[0].config;
  if (protocol.startsWith("sequential")) {
    throw new InputError(`${group[0].path} is a shard of a ${protocol} run, which cannot be split`);
  }
  const owner = new Map<number, string>();
  const numbers = new Map<number, string>();
  for (const { path, lines, config } of group) {
    const { index } = config.shard!;
    const twin = numbers.get(index);
    if (twin) throw new InputError(`${twin} and ${path} are both shard ${index} of ${config.shard!.of}`);
    numbers.set(index, path);
    for (const { id, index } of lines) {
      const other = owner.get(index);
      if (other) {
        throw new InputError(`Shards overlap: case ${id} at position ${index} is in ${other} and in ${path}`);
      }
      owner.set(index, path);
    }
  }
}

/** Says why a run is not whole: another shard that nearly fits, a shard or cases that are missing. */
function refuseIncomplete(groups: readonly Folder[][], merged: readonly Merged[], at: number): never {
  const [first, ...rest] = groups[at];
  const { config, missing, paths } = merged[at];
  const hint = "Give --partial to show it as it is";
  const { shard } = first.config;
  if (shard) {
    const other = groups.find((group, i) => i !== at && group[0].config.shard && merged[i].missing > 0)?.[0];
    const found = other && difference(comparable(first.config), comparable(other.config));
    if (found) {
      throw new InputError(
        `${first.path} and ${other.path} are not shards of one run: ` +
          `${found.key} is ${brief(found.a)} in the one and ${brief(found.b)} in the other`,
      );
    }
    const there = new Set([first, ...rest].map((folder) => folder.config.shard!.index));
    const gone = Array.from({ length: shard.of }, (_, i) => i + 1).filter((i) => !there.has(i));
    if (gone.length) {
      const which = gone.length > 1 ? `shards ${gone.join(", ")}` : `shard ${gone[0]}`;
      throw new InputError(
        `The run in ${paths.join(", ")} is incomplete: ${which} of ${shard.of} ${
          gone.length > 1 ? "are" : "is"
        } missing`,
        { hint },
      );
    }
  }
  throw new InputError(
    `The run in ${
      paths.join(", ")
    } is incomplete: ${missing} of its ${config.indices.length} cases are missing`,
    { hint: "Finish it with --resume, or give --partial to show it as it is" },
  );
}
