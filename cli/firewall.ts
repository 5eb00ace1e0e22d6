/** The firewall's flags and its lines in a report. */
import { InputError } from "../engine/io/errors.ts";
import type { Budgets, Check, Guarded } from "../evaluation/firewall.ts";
import { keepProbe, type PackProbe, readPack } from "../evaluation/pack.ts";
import { number } from "./inputs.ts";
import { table } from "./terminal.ts";

/** Flags that set budgets. */
export interface FirewallFlags {
  maxDrift?: string;
  maxNormGrowth?: string;
  keep: string[];
  keepPack?: string;
}

/**
 * The budgets that the flags set; undefined when they set none.
 * @throws {InputError} for a bad number, or a pack that cannot be used
 */
export async function budgetsOf(flags: FirewallFlags): Promise<Budgets | undefined> {
  const limit = (flag: string, value: string | undefined) =>
    value === undefined ? undefined : number(flag, value, 0, 1e6);
  const maxDrift = limit("--max-drift", flags.maxDrift);
  const maxNormGrowth = limit("--max-norm-growth", flags.maxNormGrowth);
  if (flags.keep.some((prompt) => prompt.trim() === "")) throw new InputError("--keep wants a prompt");
  const keep = [...flags.keep.map(keepProbe), ...flags.keepPack ? await keptBy(flags.keepPack) : []];
  if (maxDrift === undefined && maxNormGrowth === undefined && keep.length === 0) return undefined;
  return { maxDrift, maxNormGrowth, keep };
}

async function keptBy(path: string): Promise<PackProbe[]> {
  const { probes, warnings } = await readPack(path);
  for (const warning of warnings) console.error(`note: ${warning}`);
  const keep = probes.filter(({ expect }) => expect === "keep");
  if (keep.length > 0) return keep;
  throw new InputError(`${path} has nothing to keep: none of its ${probes.length} probes expects "keep"`);
}

/** What `edit --json` says of the firewall. */
export function firewallJson({ scale, checks, broken, refused }: Guarded) {
  return { scale, checks, broken, ...(refused === undefined ? {} : { refused }) };
}

/** The report's part on the firewall. */
export function firewallLines({ scale, checks, refused }: ReturnType<typeof firewallJson>): string[] {
  const head = ["firewall", "budget", "in full", ...scale > 0 && scale < 1 ? [`at ${scale}`] : [], ""];
  const rows = checks.map((check) => [
    check.probe === undefined ? check.name : `keep ${clip(check.probe)}`,
    ...[check.limit, check.full, ...head.length > 4 ? [check.value] : []].map(cell),
    check.ok ? check.bound ? "ok, scaled back" : "ok" : "BROKEN",
  ]);
  const verdict = refused !== undefined
    ? `The firewall refused the edit: ${refused}`
    : scale < 1
    ? `The firewall took the edit back to ${scale} of its strength`
    : "The edit is within its budgets";
  return [table([head, ...rows]), verdict];
}

function cell(value: Check["limit"]): string {
  return typeof value === "number" ? String(Number(value.toPrecision(3))) : clip(value);
}

function clip(text: string): string {
  return text.length > 40 ? `${text.slice(0, 39)}…` : text;
}
