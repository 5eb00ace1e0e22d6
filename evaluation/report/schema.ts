/**
 * The shapes of a run folder's files, checked: run folders travel between machines and get edited by hand.
 * Keys that are not known here are let through, so that older reports read newer runs.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";
import { type CaseLine, PHASES, type RetainedLine, type RunConfig } from "../records.ts";

const count = z.int().min(0);

/** JSON writes NaN and infinity as null: a number that is not there. */
const value = z.number().nullable();
const metrics = z.record(z.string(), value);
const answers = z.array(z.array(z.string()));

const request = z.looseObject({
  prompt: z.string(),
  subject: z.string(),
  target: z.string(),
  true: z.string().optional(),
});

const probe = z.looseObject({
  kind: z.string(),
  prompt: z.string(),
  group: z.string().optional(),
  answers,
  expect: z.enum(["new", "answer", "unchanged"]),
  rival: z.string().optional(),
  test: z.looseObject({ id: z.string(), combine: z.enum(["any", "all"]) }).optional(),
});

const forced = z.looseObject({
  text: z.string(),
  tokens: z.array(count),
  logProbs: z.array(value),
  argmax: z.array(count),
  pieces: z.looseObject({ tokens: z.array(z.string()), argmax: z.array(z.string()) }).optional(),
}).refine(
  ({ tokens, logProbs, argmax }) => tokens.length === logProbs.length && tokens.length === argmax.length,
  "has lists of different lengths",
);

const readings = z.looseObject({
  probes: z.array(z.looseObject({
    answer: forced.optional(),
    rival: forced.optional(),
    text: z.string().optional(),
    conditions: z.array(z.string()).optional(),
  })),
  texts: z.array(z.string()).optional(),
});

const phases = z.partialRecord(
  z.enum(PHASES),
  z.looseObject({ time_s: z.number(), gpu_peak_bytes: z.number(), host_bytes: z.number() }),
);

const caseLine = z.looseObject({
  id: z.string(),
  index: count,
  requests: z.array(request).min(1),
  probes: z.array(probe),
  before: readings,
  after: readings,
  edit: z.looseObject({
    steps: count,
    loss: value.optional(),
    warnings: z.array(z.string()),
    changes: z.array(z.looseObject({ role: z.string(), frobenius: value, relative: value })),
    failed: z.string().optional(),
    cached_targets: count.optional(),
    firewall: z.looseObject({ scale: value, refused: z.string().optional() }).optional(),
  }),
  metrics: z.looseObject({ before: metrics, after: metrics }),
  drift: z.looseObject({ before: metrics, after: metrics }).optional(),
  restored: z.boolean().optional(),
  time_s: z.looseObject({ edit: z.number(), evaluate: z.number() }),
  memory: z.looseObject({ gpu_peak_bytes: z.number(), host_bytes: z.number() }),
  phases,
});

const retainedLine = z.looseObject({
  id: z.string(),
  index: count,
  readings,
  metrics,
  time_s: z.looseObject({ evaluate: z.number() }),
  phases,
});

const runConfig = z.looseObject({
  format: z.literal("emend-run"),
  format_version: z.literal(1),
  emend_version: z.string(),
  model: z.looseObject({ name: z.string(), hash: z.string(), type: z.string() }),
  method: z.string(),
  hparams: z.record(z.string(), z.unknown()),
  recipe: z.string(),
  dataset: z.looseObject({ name: z.string(), layout: z.string(), hash: z.string(), cases: count }),
  protocol: z.enum(["single", "batch", "sequential", "sequential-batch"]),
  batch: z.int().min(1),
  readings: z.array(z.string()),
  seed: z.number(),
  statistics: z.array(z.looseObject({ layer: count, tokens: z.number(), corpus: z.string() })),
  adapter: z.string(),
  indices: z.array(count).refine((list) => new Set(list).size === list.length, "names a case twice"),
  shard: z.looseObject({ index: z.int().min(1), of: z.int().min(1) }).refine(
    ({ index, of }) => index <= of,
    "has an index above its count",
  ).optional(),
});

/** @throws {InputError} naming the field. @param where the file, and the line in it */
export const checkConfig = (value: unknown, where: string) =>
  check<RunConfig>(runConfig, value, where, "a run's configuration");

/** @throws {InputError} naming the field */
export const checkCaseLine = (value: unknown, where: string) =>
  check<CaseLine>(caseLine, value, where, "a case of a run");

/** @throws {InputError} naming the field */
export const checkRetainedLine = (value: unknown, where: string) =>
  check<RetainedLine>(retainedLine, value, where, "a case read again");

/** The value itself and not a copy: summaries repeat a configuration byte for byte. */
function check<T>(schema: z.ZodType, value: unknown, where: string, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return value as T;
  const { path, message } = result.error.issues[0];
  const field = path.length ? `${path.join(".")}: ` : "";
  throw new InputError(`${where} is not ${what}: ${field}${message.replace(/\.$/, "")}`);
}
