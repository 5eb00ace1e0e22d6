/**
 * Edits by prompts as files: facts, what is put before prompts about them, and the scope that tells which those
 * are. FORMAT.md, "Prompts in front", is the description. Such a patch changes no tensor, so it can be laid on a
 * model, stacked and taken off, but not merged into a checkpoint.
 */
import { z } from "npm:zod@4.6.7";
import manifest from "../deno.json" with { type: "json" };
import type { Scope } from "../editors/prompts/edit.ts";
import { parseEncoderName } from "../editors/prompts/encoder_name.ts";
import { fromFloat32, toFloat32 } from "../engine/io/convert.ts";
import { findNonFinite } from "../engine/io/dtypes.ts";
import { InputError } from "../engine/io/errors.ts";
import { type SafetensorsFile, type TensorOut, writeSafetensors } from "../engine/io/safetensors.ts";
import { canonical } from "./canonical.ts";
import type { Patch, PatchPart } from "./patch.ts";

export const PROMPT_FORMAT = "emend-prompts";
const VERSION = "1";

const json = <T extends z.ZodType>(schema: T) =>
  z.string().transform((text, context) => {
    try {
      return JSON.parse(text) as unknown;
    } catch {
      context.addIssue("it is not JSON");
      return z.NEVER;
    }
  }).pipe(schema);

const metadataSchema = z.object({
  base_hash: z.string().regex(/^[0-9a-f]{64}$/, "it is not a SHA-256 in hex"),
  base_name: z.string().min(1),
  model_type: z.string().min(1),
  method: z.string().min(1),
  hparams: json(z.record(z.string(), z.unknown())),
  requests: json(z.array(z.looseObject({ prompt: z.string(), subject: z.string(), target: z.string() }))),
  emend_version: z.string().min(1),
  facts: json(z.array(z.object({ text: z.string().min(1), front: z.string().min(1) }))),
  scope: json(z.object({
    rule: z.enum(["nearest", "always", "gold"]),
    alone: z.boolean(),
    measure: z.enum(["cosine", "distance"]),
    limit: z.number(),
    margin: z.number().optional(),
    soft: z.boolean().optional(),
  })),
  encoder: z.string(),
  answers: json(z.union([
    z.object({ kind: z.literal("base") }),
    z.object({ kind: z.literal("adapter"), editor: z.string(), hash: z.string() }),
    z.object({ kind: z.literal("sibling"), name: z.string(), hash: z.string() }),
  ])),
  stack: json(z.array(z.object({
    base_name: z.string().min(1),
    method: z.string().min(1),
    hparams: z.record(z.string(), z.unknown()),
    requests: z.number().int().min(0),
    facts: z.number().int().min(0),
    emend_version: z.string().min(1),
  }))).optional(),
});

/** Writes a patch with prompts, atomically. @throws {InputError} when the file cannot be written */
export async function writePromptPatch(path: string, patch: Patch): Promise<void> {
  const { base, modelType, method, hparams, requests, version, parts } = patch;
  const { scope: { encoder, mean, projection, ...scope }, facts, answers } = patch.prompts!;
  const tensor = (name: string, shape: number[], values: Float32Array): TensorOut => (
    { name, dtype: "F32", shape, data: () => [fromFloat32("F32", values)] }
  );
  const width = facts[0]?.embedding.length ?? 0;
  const embeddings = new Float32Array(facts.length * width);
  facts.forEach(({ embedding }, i) => embeddings.set(embedding, i * width));
  const tensors = [
    tensor("facts", [facts.length, width], embeddings),
    ...mean ? [tensor("scope.mean", [mean.length], mean)] : [],
    ...projection
      ? [
        tensor("scope.projection.mean", [projection.mean.length], projection.mean),
        tensor("scope.projection", [projection.bias.length, projection.mean.length], projection.matrix),
        tensor("scope.projection.bias", [projection.bias.length], projection.bias),
      ]
      : [],
  ];
  await writeSafetensors(path, tensors, {
    format: PROMPT_FORMAT,
    format_version: VERSION,
    base_hash: base.hash,
    base_name: base.name,
    model_type: modelType,
    method,
    hparams: canonical(hparams),
    requests: canonical(requests),
    emend_version: version,
    facts: canonical(facts.map(({ text, front }) => ({ text, front }))),
    scope: canonical(scope),
    encoder: canonical(encoder),
    answers: canonical(answers),
    ...(parts === undefined ? {} : {
      stack: canonical(parts.map((part) => ({
        base_name: part.base.name,
        method: part.method,
        hparams: part.hparams,
        requests: part.requests,
        facts: part.facts ?? 0,
        emend_version: part.version,
      }))),
    }),
  });
}

/** Reads what {@link writePromptPatch} wrote. @throws {InputError} naming what is wrong in the file */
export async function parsePromptPatch(file: SafetensorsFile): Promise<Patch> {
  const { name: path } = file.source;
  if (file.metadata.format_version !== VERSION) {
    throw new InputError(
      `${path} holds prompts in format version ${file.metadata.format_version}; this emend reads ${VERSION}`,
      { hint: "Update emend" },
    );
  }
  const result = metadataSchema.safeParse(file.metadata);
  if (!result.success) {
    const [{ path: at, message }] = result.error.issues;
    throw new InputError(`Cannot read ${path}: bad ${at.map(String).join(".")} in its metadata: ${message}`);
  }
  const m = result.data;
  const wrong = (why: string) => new InputError(`Cannot read ${path}: ${why}`);
  const read = async (name: string, shape: (number | undefined)[]) => {
    const entry = file.entries.get(name);
    if (!entry || entry.dtype !== "F32" || entry.shape.length !== shape.length) {
      throw wrong(`it has no F32 tensor "${name}" of ${shape.length} dimensions`);
    }
    if (shape.some((size, i) => size !== undefined && entry.shape[i] !== size)) {
      throw wrong(`tensor "${name}" is [${entry.shape.join(", ")}]`);
    }
    const bytes = await file.read(entry);
    if (findNonFinite({ dtype: "F32" }, bytes) >= 0) {
      throw wrong(`tensor "${name}" holds a value that is not finite`);
    }
    return { shape: entry.shape, values: toFloat32("F32", bytes) };
  };
  const embeddings = await read("facts", [m.facts.length, undefined]);
  const width = embeddings.shape[1];
  const scope: Scope = { ...m.scope, encoder: parseEncoderName(m.encoder, path) };
  if (file.entries.has("scope.mean")) scope.mean = (await read("scope.mean", [width])).values;
  if (file.entries.has("scope.projection")) {
    const matrix = await read("scope.projection", [width, undefined]);
    scope.projection = {
      mean: (await read("scope.projection.mean", [matrix.shape[1]])).values,
      matrix: matrix.values,
      bias: (await read("scope.projection.bias", [width])).values,
    };
  }
  const facts = m.facts.map((fact, i) => (
    { ...fact, embedding: embeddings.values.slice(i * width, (i + 1) * width) }
  ));
  const sum = (key: "requests" | "facts") => m.stack!.reduce((total, part) => total + part[key], 0);
  if (m.stack && (sum("requests") !== m.requests.length || sum("facts") !== facts.length)) {
    throw wrong("its parts do not add up to it");
  }
  return {
    base: { hash: m.base_hash, name: m.base_name },
    modelType: m.model_type,
    method: m.method,
    hparams: m.hparams,
    requests: m.requests,
    deltas: [],
    prompts: { scope, facts, answers: m.answers },
    version: m.emend_version,
    ...m.stack && {
      parts: m.stack.map((part): PatchPart => ({
        base: { name: part.base_name },
        method: part.method,
        hparams: part.hparams,
        version: part.emend_version,
        requests: part.requests,
        facts: part.facts,
        tensors: [],
      })),
    },
  };
}

/**
 * Several patches with prompts as one memory.
 * @param parts of one base, at least two
 * @throws {InputError} when weights are among them, or their scopes do not go together
 */
export function stackPrompts(parts: readonly Patch[]): Patch {
  const [first] = parts;
  const same = (key: "method" | "hparams") =>
    parts.every((part) => canonical(part[key]) === canonical(first[key]));
  const kind = ({ prompts }: Patch) => {
    const { mean: _, projection: __, ...rest } = prompts!.scope;
    return canonical([rest, prompts!.answers]);
  };
  const other = parts.findIndex((part) => !part.prompts || kind(part) !== kind(first));
  if (other >= 0 || !first.prompts) {
    throw new InputError(
      `Patch 1 (${first.method}) and patch ${Math.max(other, 1) + 1} (${
        parts[Math.max(other, 1)].method
      }) cannot ` +
        "be one file: prompts in front stack only with prompts of the same scope",
      { hint: "generate and test take several --patch, one after another" },
    );
  }
  return {
    base: first.base,
    modelType: first.modelType,
    method: same("method") ? first.method : "stack",
    hparams: same("method") && same("hparams") ? first.hparams : {},
    requests: parts.flatMap(({ requests }) => requests),
    deltas: [],
    prompts: { ...first.prompts, facts: parts.flatMap(({ prompts }) => prompts!.facts) },
    version: manifest.version,
    parts: parts.map(({ base, method, hparams, version, requests, prompts }): PatchPart => ({
      base: { name: base.name },
      method,
      hparams,
      version,
      requests: requests.length,
      facts: prompts!.facts.length,
      tensors: [],
    })),
  };
}

/** The patches that {@link stackPrompts} stacked, each as it was. */
export function partsOfPrompts(patch: Patch): Patch[] {
  let request = 0, fact = 0;
  return patch.parts!.map(({ base, method, hparams, version, requests, facts = 0 }) => ({
    base: { hash: patch.base.hash, name: base.name },
    modelType: patch.modelType,
    method,
    hparams,
    requests: patch.requests.slice(request, request += requests),
    deltas: [],
    prompts: { ...patch.prompts!, facts: patch.prompts!.facts.slice(fact, fact += facts) },
    version,
  }));
}

/**
 * Refuses a patch that changes no weight where weights are written.
 * @param what cannot be written: "a PEFT adapter"
 * @throws {InputError} naming the method
 */
export function requireWeights(
  { prompts, additions, method }: Pick<Patch, "prompts" | "additions" | "method">,
  what: string,
): void {
  if (additions?.length) {
    throw new InputError(
      `An edit by ${method} puts ${
        additions.map(({ kind }) => kind).join(" and ")
      } beside the weights, which ` +
        `act by what the model reads: it cannot become ${what}`,
      { hint: "Keep it as a patch file; generate and test lay it on the model with --patch" },
    );
  }
  if (!prompts) return;
  throw new InputError(`An edit by ${method} changes no weight: it cannot become ${what}`, {
    hint: "Keep it as a patch file; generate, eval and test lay it on the model with --patch",
  });
}
