/**
 * A patch as one safetensors file; FORMAT.md is its description. The same patch always gives the same bytes.
 * Reading is strict: a file that says anything else than its tensors do is refused.
 */
import { z } from "npm:zod@4.6.7";
import { fromFloat32, toFloat32 } from "../engine/io/convert.ts";
import { findNonFinite } from "../engine/io/dtypes.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { isObject } from "../engine/io/json.ts";
import {
  parseSafetensors,
  type SafetensorsFile,
  type TensorOut,
  writeSafetensors,
} from "../engine/io/safetensors.ts";
import { openFile } from "../engine/io/source.ts";
import type { Patch, TensorDelta } from "./patch.ts";

const FORMAT = "emend-patch";
const FORMAT_VERSION = "1";

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
  tensors: json(z.array(tensorSchema).min(1)),
  emend_version: z.string().min(1),
});

type TensorRecord = z.infer<typeof tensorSchema>;

/**
 * Writes a patch, atomically.
 * @throws {InputError} when a change is not finite, or the file cannot be written
 */
export async function writePatch(path: string, patch: Patch): Promise<void> {
  const { base, modelType, method, hparams, requests, deltas, version } = patch;
  const tensors = deltas.flatMap((delta) => tensorsOf(delta, path));
  const records = deltas.map(({ tensor: name, role, layout, ...rest }): TensorRecord => (
    { name, role, layout, ranks: rest.kind === "low-rank" ? rest.ranks : undefined }
  ));
  await writeSafetensors(path, tensors, {
    format: FORMAT,
    format_version: FORMAT_VERSION,
    base_hash: base.hash,
    base_name: base.name,
    model_type: modelType,
    method,
    hparams: canonical(hparams),
    requests: canonical(requests),
    tensors: canonical(records),
    emend_version: version,
  });
}

/**
 * Reads a patch.
 * @throws {InputError} naming the file and what is wrong in it
 */
export async function readPatch(path: string): Promise<Patch> {
  const source = await openFile(path);
  try {
    return await parsePatch(await parseSafetensors(source));
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

  const deltas: TensorDelta[] = [];
  const tensors = new Set<string>(), roles = new Set<string>();
  for (const { name: tensor, role, layout, ranks } of metadata.tensors) {
    if (tensors.has(tensor) || roles.has(role)) {
      throw new InputError(`Cannot read ${path}: it lists tensor ${show(tensor)} (${show(role)}) twice`);
    }
    tensors.add(tensor);
    roles.add(role);
    if (ranks === undefined) {
      const orientation = layout === undefined ? {} : { layout };
      deltas.push({ kind: "dense", tensor, role, ...orientation, ...await take(`${tensor}.delta`) });
      continue;
    }
    if (layout === undefined) {
      throw new InputError(`Cannot read ${path}: tensor ${show(tensor)} has ranks but no layout`);
    }
    const left = await take(`${tensor}.left`, 2), right = await take(`${tensor}.right`, 2);
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
  return {
    base: { hash: metadata.base_hash, name: metadata.base_name },
    modelType: metadata.model_type,
    method: metadata.method,
    hparams: metadata.hparams,
    requests,
    deltas,
    version: metadata.emend_version,
  };
}

function checkMetadata(metadata: Record<string, string>, path: string): z.infer<typeof metadataSchema> {
  const { format, format_version: version } = metadata;
  if (format !== FORMAT) {
    throw new InputError(
      `${path} is not a patch: its metadata has ${format === undefined ? "no" : "another"} format`,
      {
        hint: "Give a file that emend edit --patch wrote",
      },
    );
  }
  if (version !== FORMAT_VERSION) {
    throw new InputError(
      `${path} is a patch in format version ${show(version)}; this emend reads version ${FORMAT_VERSION}`,
      { hint: "Update emend" },
    );
  }
  const result = metadataSchema.safeParse(metadata);
  if (result.success) return result.data;
  const { path: at, message } = result.error.issues[0];
  throw new InputError(`Cannot read ${path}: bad ${at.map(String).join(".")} in its metadata: ${message}`);
}

function tensorsOf(delta: TensorDelta, path: string): TensorOut[] {
  const { tensor } = delta;
  const out = (part: string, shape: number[], values: Float32Array): TensorOut => {
    const bytes = fromFloat32("F32", values);
    if (findNonFinite({ dtype: "F32" }, bytes) >= 0) {
      throw new InputError(`Cannot write ${path}: the change of ${show(tensor)} is not finite`);
    }
    return { name: `${tensor}.${part}`, dtype: "F32", shape, data: () => [bytes] };
  };
  if (delta.kind === "dense") return [out("delta", delta.shape, delta.values)];
  const { left, right, ranks: { length: rank } } = delta;
  return [out("left", [left.length / rank, rank], left), out("right", [right.length / rank, rank], right)];
}

/** JSON with every object's keys in order, so that equal values are equal texts. */
function canonical(value: unknown): string {
  const sorted = (_: string, item: unknown) =>
    isObject(item) ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => a < b ? -1 : 1)) : item;
  return JSON.stringify(value, sorted);
}
