/**
 * Several patches as one. A stack is a patch like any other, the sum of its parts, which also remembers where
 * each part's numbers are: any part comes out again bit for bit, and a stack without a part is the stack that
 * never had it, byte for byte. Ranks of one tensor stand side by side; a dense change of a tensor stays apart.
 */
import manifest from "../deno.json" with { type: "json" };
import { InputError, show } from "../engine/io/errors.ts";
import { recordOfAddition } from "./addition_file.ts";
import { canonical } from "./canonical.ts";
import { pickColumns, sideBySide } from "./columns.ts";
import type { LowRankDelta, Patch, PatchPart, TensorDelta } from "./patch.ts";
import { partsOfPrompts, stackPrompts } from "./prompt_patch.ts";

/**
 * Stacks patches in order; stacks among them give their parts. A stack of one patch is that patch.
 * @throws {InputError} for no patch, and for patches of different bases or that disagree about a tensor
 */
export function stackPatches(patches: readonly Patch[]): Patch {
  const parts = patches.flatMap(partsOf);
  if (parts.length === 0) throw new InputError("A stack needs at least one patch");
  const [first] = parts;
  if (parts.length === 1) return first;
  const other = parts.findIndex(({ base }) => base.hash !== first.base.hash);
  if (other >= 0) {
    const name = ({ base }: Patch) => `${base.hash.slice(0, 8)}… (${base.name})`;
    throw new InputError(
      `Cannot stack patches of different models: patch 1 is for ${name(first)}, ` +
        `patch ${other + 1} for ${name(parts[other])}`,
    );
  }
  if (parts.some(({ prompts }) => prompts)) return stackPrompts(parts);
  const requests = parts.flatMap((part) => part.requests);
  const additions = parts.flatMap((part) => part.additions ?? []);
  const same = (key: "method" | "hparams") =>
    parts.every((part) => canonical(part[key]) === canonical(first[key]));
  return {
    base: first.base,
    modelType: first.modelType,
    method: same("method") ? first.method : "stack",
    hparams: same("method") && same("hparams") ? first.hparams : {},
    requests,
    deltas: joinDeltas(parts),
    ...(additions.length ? { additions } : {}),
    version: manifest.version,
    parts: parts.map((part): PatchPart => ({
      base: { name: part.base.name },
      method: part.method,
      hparams: part.hparams,
      version: part.version,
      requests: part.requests.length,
      ...(part.additions ? { additions: part.additions.length } : {}),
      tensors: part.deltas.map((delta) =>
        delta.kind === "dense" ? { tensor: delta.tensor } : { tensor: delta.tensor, rank: delta.ranks.length }
      ),
    })),
  };
}

/**
 * The patches that a stack was made of, each as it was; any other patch is its only part.
 * @throws {InputError} when the parts do not add up to the stack
 */
export function partsOf(patch: Patch): Patch[] {
  if (patch.parts === undefined) return [patch];
  if (patch.prompts) return partsOfPrompts(patch);
  const left = new Map<string, TensorDelta[]>();
  for (const delta of patch.deltas) left.set(delta.tensor, [...left.get(delta.tensor) ?? [], delta]);
  const used = new Map<TensorDelta, number>();
  let firstRequest = 0, addition = 0;
  const parts = patch.parts.map((part): Patch => {
    const requests = patch.requests.slice(firstRequest, firstRequest + part.requests);
    const deltas = part.tensors.map(({ tensor, rank }) => {
      const delta = left.get(tensor)?.[0];
      const wrong = new InputError(`The stack has no such change of ${show(tensor)} as its part says`);
      if (delta === undefined || (delta.kind === "dense") !== (rank === undefined)) throw wrong;
      const from = used.get(delta) ?? 0;
      const size = delta.kind === "dense" ? 1 : delta.ranks.length;
      const count = rank ?? 1;
      if (from + count > size) throw wrong;
      used.set(delta, from + count);
      if (from + count === size) left.get(tensor)!.shift();
      return delta.kind === "dense" ? delta : ranksOf(delta, from, count, firstRequest, part.requests);
    });
    firstRequest += part.requests;
    const { method, hparams, version } = part;
    const base = { hash: patch.base.hash, name: part.base.name };
    const additions = patch.additions?.slice(addition, addition += part.additions ?? 0) ?? [];
    const made = { base, modelType: patch.modelType, method, hparams, requests, deltas, version };
    return additions.length ? { ...made, additions } : made;
  });
  if (firstRequest !== patch.requests.length) {
    throw new InputError(
      `The stack has ${patch.requests.length} requests, its parts ${firstRequest} together`,
    );
  }
  if (addition !== (patch.additions?.length ?? 0)) {
    throw new InputError(
      `The stack has ${patch.additions?.length ?? 0} additions, its parts ${addition} together`,
    );
  }
  const stray = [...left].find(([, deltas]) => deltas.length > 0);
  if (stray) throw new InputError(`A change of ${show(stray[0])} belongs to no part of the stack`);
  return parts;
}

/**
 * The stack without some of its parts: what stacking the others gives.
 * @param numbers parts, counted from 1
 * @throws {InputError} when there is no such part, or none would be left
 */
export function withoutParts(patch: Patch, numbers: readonly number[]): Patch {
  const parts = partsOf(patch);
  const missing = numbers.find((n) => !Number.isInteger(n) || n < 1 || n > parts.length);
  if (missing !== undefined) {
    throw new InputError(
      `There is no patch ${missing}: ${parts.length === 1 ? "there is 1" : `there are ${parts.length}`}`,
    );
  }
  return stackPatches(parts.filter((_, i) => !numbers.includes(i + 1)));
}

/**
 * Numbers, from 1, of the parts of `patch` that `other` is; a stack is all of its parts.
 * @throws {InputError} when one is not in it, or more than once
 */
export function findParts(patch: Patch, other: Patch, name = "The patch"): number[] {
  const parts = partsOf(patch);
  return partsOf(other).map((wanted) => {
    const at = parts.flatMap((part, i) => samePatch(part, wanted) ? [i + 1] : []);
    if (at.length === 0) throw new InputError(`${name} is not among these patches`);
    if (at.length > 1) {
      throw new InputError(`${name} is there ${at.length} times, as patches ${at.join(", ")}`, {
        hint: "Give the number of the one that should go",
      });
    }
    return at[0];
  });
}

/** Whether two patches would be the same file. */
function samePatch(a: Patch, b: Patch): boolean {
  const plain = (patch: Patch) =>
    canonical({
      ...patch,
      deltas: patch.deltas.map(({ kind, tensor, role }) => ({ kind, tensor, role })),
      additions: patch.additions?.map(recordOfAddition) ?? [],
    });
  if (plain(a) !== plain(b)) return false;
  const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);
  const equal = (x: Float32Array, y: Float32Array) => {
    const [p, q] = [bits(x), bits(y)];
    return p.length === q.length && p.every((word, i) => word === q[i]);
  };
  const beside = (patch: Patch) => patch.additions?.flatMap(({ tensors }) => [...tensors.values()]) ?? [];
  const others = beside(b);
  if (!beside(a).every(({ values }, i) => equal(values, others[i].values))) return false;
  return a.deltas.every((x, i) => {
    const y = b.deltas[i];
    if (x.kind === "dense" || y.kind === "dense") {
      return x.kind === y.kind && "values" in x && "values" in y && equal(x.values, y.values);
    }
    return equal(x.left, y.left) && equal(x.right, y.right) && canonical(x.ranks) === canonical(y.ranks);
  });
}

/** All changes of all parts: neighbouring ranks of a tensor as one pair of factors. */
function joinDeltas(parts: readonly Patch[]): TensorDelta[] {
  const runs: TensorDelta[][] = [];
  const last = new Map<string, TensorDelta[]>();
  const homes = new Map<string, string>();
  let firstRequest = 0;
  for (const { deltas, requests } of parts) {
    for (const delta of deltas) {
      const { tensor, role, layout } = delta;
      const home = canonical([role, layout ?? null]);
      if ((homes.get(tensor) ?? home) !== home) {
        throw new InputError(`Cannot stack patches that disagree about the role of ${show(tensor)}`);
      }
      homes.set(tensor, home);
      const own = delta.kind === "dense" ? delta : {
        ...delta,
        ranks: delta.ranks.map((request) => request === null ? null : request + firstRequest),
      };
      const run = last.get(tensor);
      if (own.kind === "low-rank" && run?.[0].kind === "low-rank") {
        checkSizes(run[0], own);
        run.push(own);
      } else {
        const fresh = [own];
        last.set(tensor, fresh);
        runs.push(fresh);
      }
    }
    firstRequest += requests.length;
  }
  return runs.map(joinRun);
}

function joinRun(run: TensorDelta[]): TensorDelta {
  const [first] = run;
  if (first.kind === "dense" || run.length === 1) return first;
  const deltas = run as LowRankDelta[];
  const side = (name: "left" | "right") =>
    sideBySide(deltas.map((delta) => ({ values: delta[name], rank: delta.ranks.length })));
  const ranks = deltas.flatMap((delta) => delta.ranks);
  return { ...first, left: side("left"), right: side("right"), ranks };
}

function checkSizes(a: LowRankDelta, b: LowRankDelta): void {
  const sizes = ({ left, right, ranks: { length: rank } }: LowRankDelta) =>
    `[${left.length / rank}, ${right.length / rank}]`;
  if (sizes(a) === sizes(b)) return;
  throw new InputError(`Cannot stack changes of ${show(a.tensor)} that are ${sizes(a)} and ${sizes(b)}`);
}

/** Ranks [from, from + count) of a change, with request numbers counted from the part's first. */
function ranksOf(delta: LowRankDelta, from: number, count: number, first: number, requests: number) {
  const { left, right, ranks } = delta;
  const own = ranks.slice(from, from + count).map((request) => {
    if (request === null) return null;
    if (request >= first && request < first + requests) return request - first;
    throw new InputError(
      `A rank of ${show(delta.tensor)} is for request ${request}, which is another part's`,
    );
  });
  if (count === ranks.length) return { ...delta, ranks: own };
  const columns = own.map((_, i) => from + i);
  const side = (values: Float32Array) => pickColumns(values, ranks.length, columns);
  return { ...delta, left: side(left), right: side(right), ranks: own };
}
