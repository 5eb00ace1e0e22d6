/** Files that users hand in: edit requests (JSON, JSONL) and hyper-parameters (JSON, EasyEdit's YAML). */
import { parse as parseYaml } from "npm:yaml@2.9.1";
import { type EditRequest, validateRequest } from "../editors/requests.ts";
import { InputError } from "../engine/io/errors.ts";

/** Field names of other tools' request files. */
const ALIASES: Record<string, keyof EditRequest> = {
  prompt: "prompt",
  subject: "subject",
  target: "target",
  target_new: "target",
  true: "true",
  target_true: "true",
  ground_truth: "true",
};

/**
 * Reads and checks edit requests: a JSON array, one JSON object, or one JSON object a line. ROME's nested
 * `{ "target_new": { "str": … } }` is understood.
 * @throws {InputError} with the line number of a bad line, or the place of a bad request
 */
export async function readRequests(path: string): Promise<EditRequest[]> {
  const text = await readText(path);
  const lines = text.split("\n");
  if (path.endsWith(".jsonl")) {
    const out: EditRequest[] = [];
    lines.forEach((line, i) => {
      if (line.trim()) out.push(toRequest(parseJson(line, `${path} line ${i + 1}`), `${path} line ${i + 1}`));
    });
    if (out.length === 0) throw new InputError(`${path} holds no request`);
    return out;
  }
  const value = parseJson(text, path);
  const list = Array.isArray(value) ? value : [value];
  if (list.length === 0) throw new InputError(`${path} holds no request`);
  return list.map((item, i) => toRequest(item, list.length > 1 ? `Request ${i + 1} of ${path}` : path));
}

function toRequest(value: unknown, where: string): EditRequest {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InputError(`${where} is not an object with prompt, subject and target`);
  }
  const source = (value as { requested_rewrite?: object }).requested_rewrite ?? value;
  const out: Partial<Record<keyof EditRequest, string>> = {};
  for (const [key, raw] of Object.entries(source)) {
    const name = ALIASES[key];
    if (!name) continue;
    const text = typeof raw === "object" && raw !== null ? (raw as { str?: unknown }).str : raw;
    if (typeof text !== "string") throw new InputError(`${where} has a "${key}" that is not text`);
    // Data sets leave an unknown true object empty.
    if (name !== "true" || text.trim() !== "") out[name] = text;
  }
  for (const key of ["prompt", "subject", "target"] as const) {
    if (out[key] === undefined) throw new InputError(`${where} has no "${key}"`);
  }
  return validateRequest(out as EditRequest, where);
}

/** Reads hyper-parameters from JSON or YAML. @throws {InputError} when the file is neither */
export async function readHparams(path: string): Promise<Record<string, unknown>> {
  const text = await readText(path);
  let value: unknown;
  try {
    value = /\.ya?ml$/.test(path) ? parseYaml(text) : JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read ${path}: ${(error as Error).message.split("\n")[0]}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InputError(`${path} does not hold hyper-parameters by name`);
  }
  return value as Record<string, unknown>;
}

/** Parses `--set key=value` flags; values are JSON where they can be, text otherwise. */
export function parseSettings(settings: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(settings.map((setting) => {
    const at = setting.indexOf("=");
    if (at < 1) throw new InputError(`--set wants key=value, got "${setting}"`);
    const raw = setting.slice(at + 1);
    try {
      return [setting.slice(0, at), JSON.parse(raw)];
    } catch {
      return [setting.slice(0, at), raw];
    }
  }));
}

/** Takes a flag that may be repeated. */
export const collect = (value: string, list: string[]) => [...list, value];

/** A flag's value as a number. @throws {InputError} when the flag's value is no number in the range */
export function number(flag: string, text: string, min: number, max: number, whole = false): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= min && value <= max) || (whole && !Number.isInteger(value))) {
    throw new InputError(
      `${flag} wants a ${whole ? "whole " : ""}number from ${min} to ${max}, got "${text}"`,
    );
  }
  return value;
}

async function readText(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    throw new InputError(
      `Cannot read ${path}: ${error instanceof Deno.errors.NotFound ? "there is no such file" : error}`,
    );
  }
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InputError(`${where} is not JSON: ${(error as Error).message.split("\n")[0]}`);
  }
}
