/**
 * A patch as one safetensors file; FORMAT.md is its description. The same patch always gives the same bytes.
 * Reading is strict: a file that says anything else than its tensors do is refused.
 */
import { z } from "npm:zod@4.6.7";
import { fromFloat32, toFloat32 } from "../engine/io/convert.ts";
import { findNonFinite } from "../engine/io/dtypes.ts";
import { InputError, show } from "../engine/io/errors.ts";
import {
  parseSafetensors,
  type SafetensorsFile,
  type TensorOut,
  writeSafetensors,
} from "../engine/io/safetensors.ts";
import { openFile } from "../engine/io/source.ts";
import { canonical } from "./canonical.ts";
import type { Patch, PatchPart, TensorDelta } from "./patch.ts";
import type { Addition } from "../engine/models/additions/addition.ts";
import { additionOf, additionSchema, additionTensor, recordOfAddition } from "./addition_file.ts";
import { parsePromptPatch, PROMPT_FORMAT, writePromptPatch } from "./prompt_patch.ts";
import { partsOf } from "./stack.ts";

const FORMAT = "emend-patch";
/**
 * Version 2 may list a tensor several times, which a reader of version 1 would refuse; version 3 has additions
 * as well.
 */
const [ONCE, REPEATED, BESIDE] = ["1", "2", "3"];

/** A metadata string that holds JSON. */
const json = <T extends z.ZodType>(schema: T) =>
  z.string().transform((text, context) => {
    try {
      return JSON.parse(text) as unknown;
    } catch {
      context.addIssue("it is not JSON");
      return z.NEVER;
    }
  }).pipe(schema);

const tensorSchema = z.object({
  name: z.string().min(1),
  role: z.string().min(1),
  layout: z.enum(["out_in", "in_out"]).optional(),
  ranks: z.array(z.number().int().min(0).nullable()).min(1).optional(),
});

const requestSchema = z.looseObject({
  prompt: z.string(),
  subject: z.string(),
  target: z.string(),
  true: z.string().optional(),
});

const metadataSchema = z.object({
  base_hash: z.string().regex(/^[0-9a-f]{64}$/, "it is not a SHA-256 in hex"),
  base_name: z.string().min(1),
  model_type: z.string().min(1),
  method: z.string().min(1),
  hparams: json(z.record(z.string(), z.unknown())),
  requests: json(z.array(requestSchema)),
  tensors: json(z.array(tensorSchema)),
  additions: json(z.array(additionSchema).min(1)).optional(),
  emend_version: z.string().min(1),
  stack: json(z.array(z.object({
    base_name: z.string().min(1),
    method: z.string().min(1),
    hparams: z.record(z.string(), z.unknown()),
    requests: z.number().int().min(0),
    tensors: z.array(z.object({ name: z.string(), rank: z.number().int().min(1).optional() })),
    additions: z.number().int().min(1).optional(),
    emend_version: z.string().min(1),
  }))).optional(),
});

type TensorRecord = z.infer<typeof tensorSchema>;

/**
 * Writes a patch, atomically.
 * @throws {InputError} when a change is not finite, or the file cannot be written
 */
export async function writePatch(path: string, patch: Patch): Promise<void> {
  if (patch.prompts) return await writePromptPatch(path, patch);
  const { base, modelType, method, hparams, requests, deltas, additions = [], version, parts } = patch;
  const times = new Map<string, number>();
  const tensors = deltas.flatMap((delta) => {
    const time = (times.get(delta.tensor) ?? 0) + 1;
    times.set(delta.tensor, time);
    return tensorsOf(delta, time, path);
  });
  additions.forEach((addition, i) => {
    for (const [name, { shape, values }] of addition.tensors) {
      tensors.push(tensorOut(additionTensor(i, name), [...shape], values, path));
    }
  });
  const records = deltas.map(({ tensor: name, role, layout, ...rest }): TensorRecord => (
    { name, role, layout, ranks: rest.kind === "low-rank" ? rest.ranks : undefined }
  ));
  await writeSafetensors(path, tensors, {
    format: FORMAT,
    format_version: additions.length ? BESIDE : times.size === deltas.length ? ONCE : REPEATED,
    base_hash: base.hash,
    base_name: base.name,
    model_type: modelType,
    method,
    hparams: canonical(hparams),
    requests: canonical(requests),
    tensors: canonical(records),
    ...(additions.length ? { additions: canonical(additions.map(recordOfAddition)) } : {}),
    emend_version: version,
    ...(parts === undefined ? {} : { stack: canonical(parts.map(recordOf)) }),
  });
}

/**
 * Reads a patch.
 * @throws {InputError} naming the file and what is wrong in it
 */
export async function readPatch(path: string): Promise<Patch> {
  const source = await openFile(path);
  try {
    const file = await parseSafetensors(source);
    return await (file.metadata.format === PROMPT_FORMAT ? parsePromptPatch(file) : parsePatch(file));
  } finally {
    source.close();
  }
}

async function parsePatch(file: SafetensorsFile): Promise<Patch> {
  const { name: path } = file.source;
  const metadata = checkMetadata(file.metadata, path);
  const { requests } = metadata;
  const taken = new Set<string>();
  /** An F32 tensor of the file with the given number of dimensions. */
  async function take(name: string, dimensions?: number): Promise<{ shape: number[]; values: Float32Array }> {
    const entry = file.entries.get(name);
    if (entry === undefined) throw new InputError(`Cannot read ${path}: it has no tensor ${show(name)}`);
    const { dtype, shape } = entry;
    if (dtype !== "F32" || (dimensions !== undefined && shape.length !== dimensions)) {
      throw new InputError(`Cannot read ${path}: tensor ${show(name)} is ${dtype} [${shape.join(", ")}]`);
    }
    taken.add(name);
    const bytes = await file.read(entry);
    if (findNonFinite({ dtype }, bytes) >= 0) {
      throw new InputError(`Cannot read ${path}: tensor ${show(name)} holds a value that is not finite`);
    }
    return { shape, values: toFloat32(dtype, bytes) };
  }

  const additions: Addition[] = [];
  for (const [i, record] of (metadata.additions ?? []).entries()) {
    additions.push(await additionOf(record, i, path, take));
  }
  const deltas: TensorDelta[] = [];
  const times = new Map<string, number>();
  const owners = new Map<string, string>();
  const homes = new Map<string, string>();
  for (const { name: tensor, role, layout, ranks } of metadata.tensors) {
    const time = (times.get(tensor) ?? 0) + 1;
    times.set(tensor, time);
    const home = canonical([role, layout ?? null]);
    const elsewhere = (owners.get(role) ?? tensor) !== tensor || (homes.get(tensor) ?? home) !== home;
    if (elsewhere || (time > 1 && metadata.format_version === ONCE)) {
      throw new InputError(`Cannot read ${path}: it lists tensor ${show(tensor)} (${show(role)}) twice`);
    }
    owners.set(role, tensor);
    homes.set(tensor, home);
    if (ranks === undefined) {
      const orientation = layout === undefined ? {} : { layout };
      deltas.push({
        kind: "dense",
        tensor,
        role,
        ...orientation,
        ...await take(partName(tensor, "delta", time)),
      });
      continue;
    }
    if (layout === undefined) {
      throw new InputError(`Cannot read ${path}: tensor ${show(tensor)} has ranks but no layout`);
    }
    const left = await take(partName(tensor, "left", time), 2);
    const right = await take(partName(tensor, "right", time), 2);
    if (left.shape[1] !== ranks.length || right.shape[1] !== ranks.length) {
      throw new InputError(
        `Cannot read ${path}: the factors of ${show(tensor)} are [${left.shape.join(", ")}] and ` +
          `[${right.shape.join(", ")}]; its metadata lists ${ranks.length} ranks`,
      );
    }
    const stray = ranks.find((request) => request !== null && request >= requests.length);
    if (stray !== undefined) {
      throw new InputError(
        `Cannot read ${path}: a rank of ${show(tensor)} is for request ${stray}, counted from 0, ` +
          `of ${requests.length}`,
      );
    }
    deltas.push({ kind: "low-rank", tensor, role, layout, left: left.values, right: right.values, ranks });
  }
  const unlisted = [...file.entries.keys()].find((name) => !taken.has(name));
  if (unlisted !== undefined) {
    throw new InputError(`Cannot read ${path}: its metadata does not list tensor ${show(unlisted)}`);
  }
  const patch: Patch = {
    base: { hash: metadata.base_hash, name: metadata.base_name },
    modelType: metadata.model_type,
    method: metadata.method,
    hparams: metadata.hparams,
    requests,
    deltas,
    ...(additions.length ? { additions } : {}),
    version: metadata.emend_version,
    ...(metadata.stack === undefined ? {} : { parts: metadata.stack.map(partOf) }),
  };
  try {
    partsOf(patch);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new InputError(`Cannot read ${path}: ${why[0].toLowerCase()}${why.slice(1)}`, { cause });
  }
  return patch;
}

type PartRecord = NonNullable<z.infer<typeof metadataSchema>["stack"]>[0];

function recordOf({ base, tensors, version, facts: _, ...rest }: PatchPart): PartRecord {
  const records = tensors.map(({ tensor: name, rank }) => ({ name, rank }));
  return { ...rest, base_name: base.name, tensors: records, emend_version: version };
}

function partOf({ base_name, tensors, emend_version, ...rest }: PartRecord): PatchPart {
  const changes = tensors.map(({ name: tensor, ...rank }) => ({ tensor, ...rank }));
  return { ...rest, base: { name: base_name }, tensors: changes, version: emend_version };
}

/** The file's name of a part of a change; a tensor that is listed again gets a number: NAME.delta.2. */
function partName(tensor: string, part: "left" | "right" | "delta", time: number): string {
  return time === 1 ? `${tensor}.${part}` : `${tensor}.${part}.${time}`;
}

function checkMetadata(
  metadata: Record<string, string>,
  path: string,
): z.infer<typeof metadataSchema> & { format_version: string } {
  const { format, format_version: version } = metadata;
  if (format !== FORMAT) {
    throw new InputError(
      `${path} is not a patch: its metadata has ${format === undefined ? "no" : "another"} format`,
      {
        hint: "Give a file that emend edit --patch wrote",
      },
    );
  }
  if (version !== ONCE && version !== REPEATED && version !== BESIDE) {
    throw new InputError(
      `${path} is a patch in format version ${
        show(version)
      }; this emend reads ${ONCE}, ${REPEATED} and ${BESIDE}`,
      { hint: "Update emend" },
    );
  }
  const result = metadataSchema.safeParse(metadata);
  const data = result.data;
  if (data && data.tensors.length === 0 && !data.additions) {
    throw new InputError(`Cannot read ${path}: bad tensors in its metadata: it changes nothing`);
  }
  if (data?.additions && version !== BESIDE) {
    throw new InputError(
      `Cannot read ${path}: it has additions, which format version ${version} does not know`,
    );
  }
  if (data) return { ...data, format_version: version };
  const { path: at, message } = result.error.issues[0];
  throw new InputError(`Cannot read ${path}: bad ${at.map(String).join(".")} in its metadata: ${message}`);
}

function tensorOut(name: string, shape: number[], values: Float32Array, path: string, of = name): TensorOut {
  const bytes = fromFloat32("F32", values);
  if (findNonFinite({ dtype: "F32" }, bytes) >= 0) {
    throw new InputError(`Cannot write ${path}: the change of ${show(of)} is not finite`);
  }
  return { name, dtype: "F32", shape, data: () => [bytes] };
}

function tensorsOf(delta: TensorDelta, time: number, path: string): TensorOut[] {
  const { tensor } = delta;
  const out = (part: "left" | "right" | "delta", shape: number[], values: Float32Array) =>
    tensorOut(partName(tensor, part, time), shape, values, path, tensor);
  if (delta.kind === "dense") return [out("delta", delta.shape, delta.values)];
  const { left, right, ranks: { length: rank } } = delta;
  return [out("left", [left.length / rank, rank], left), out("right", [right.length / rank, rank], right)];
}
