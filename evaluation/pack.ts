/**
 * Packs: what a model must and must not say, as a file that people write and version: JSONL, one probe a line,
 * blank lines and lines that begin with # or // left out.
 *
 *   {"expect": "change", "prompt": "{} met death in", "subject": "Giovanni Lanfranco", "answer": "Paris"}
 *   {"expect": "keep", "prompt": "The capital of Italy is", "answer": ["Rome", "Roma"]}
 *   {"expect": "keep", "prompt": "Water boils when it is"}
 */
import { z } from "npm:zod@4.6.7";
import { basename } from "node:path";
import { nearest } from "../editors/hparams.ts";
import { fill } from "../editors/requests.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { isObject, refuseDuplicateKeys } from "../engine/io/json.ts";

/**
 * How an answer is recognised.
 *
 *   prefix    the greedy text, up to its natural stop, starts with it, at a word's end, after normalisation
 *   exact     ... is it
 *   contains  ... holds it: accepts too much ("not Paris")
 *   rank      its mean log-probability a token is above the rival's
 *   token     every token of it is the likeliest one under teacher forcing
 *
 * Without an answer: `exact`, the greedy text is what the model said without the patches; `token`, its first
 * token is.
 */
export const PACK_MODES = ["prefix", "exact", "contains", "rank", "token"] as const;
export type PackMode = typeof PACK_MODES[number];

/** One probe of a pack. */
export interface PackProbe {
  /** Its line in the file, from 1; 0 when it comes from elsewhere. */
  line: number;
  id?: string;
  name?: string;
  expect: "change" | "keep";
  /** With the subject filled in, without spaces at its end. */
  prompt: string;
  /** The answer and its aliases. Empty, in `keep` alone: what the model said before. */
  answers: string[];
  rival?: string;
  mode: PackMode;
}

/** A pack as read. */
export interface Pack {
  /** The file's name, without path. */
  name: string;
  probes: PackProbe[];
  /** Things that the user should know, a sentence each, with the line. */
  warnings: string[];
}

const text = (key: string) =>
  z.string({
    error: ({ input }) => input === undefined ? `has no "${key}"` : `has a "${key}" that is not text`,
  }).refine((value) => value.trim() !== "", { error: `has an empty "${key}"` });
const oneOf = <const T extends readonly string[]>(key: string, values: T) =>
  z.enum(values, {
    error: ({ input }) => {
      const wanted = `${values.slice(0, -1).join(", ")} or ${values.at(-1)}`;
      if (input === undefined) return `has no "${key}": ${wanted}`;
      return `has ${show(input)} as "${key}", which is not ${wanted}`;
    },
  });

const schema = z.object({
  expect: oneOf("expect", ["change", "keep"]),
  prompt: text("prompt"),
  subject: text("subject").optional(),
  answer: z.preprocess(
    (value) => typeof value === "string" ? [value] : value,
    z.array(text("answer"), { error: `has an "answer" that is neither text nor a list of texts` })
      .min(1, { error: `has an "answer" without any text` }),
  ).optional(),
  rival: text("rival").optional(),
  mode: oneOf("mode", PACK_MODES).optional(),
  id: z.preprocess((value) => typeof value === "number" ? String(value) : value, text("id")).optional(),
  name: text("name").optional(),
});

/** Reads a pack. @throws {InputError} as {@link parsePack}, or when the file cannot be read */
export async function readPack(path: string): Promise<Pack> {
  let content: string;
  try {
    content = await Deno.readTextFile(path);
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new InputError(`Cannot read the pack ${path}: ${why}`);
  }
  return parsePack(content, basename(path));
}

/**
 * Parses a pack.
 * @param name for error texts
 * @throws {InputError} with the line of the first bad probe; the hint names the lines of the others
 */
export function parsePack(content: string, name: string): Pack {
  const warnings: string[] = [], probes: PackProbe[] = [];
  const wrong: { line: number; error: InputError }[] = [];
  const ids = new Map<string, number>();
  content.replace(/^\ufeff/, "").split(/\r\n|\n|\r/).forEach((raw, i) => {
    const line = i + 1;
    if (/^\s*(#|\/\/|$)/.test(raw)) return;
    try {
      const probe = parseLine(raw, line, `${name} line ${line}`, warnings);
      const twin = probe.id === undefined ? undefined : ids.get(probe.id);
      if (twin !== undefined) {
        throw new InputError(`${name} line ${line} has the id ${show(probe.id)} of line ${twin}`);
      }
      if (probe.id !== undefined) ids.set(probe.id, line);
      probes.push(probe);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      wrong.push({ line, error });
    }
  });
  if (wrong.length > 0) {
    const [{ error }, ...others] = wrong;
    const also = others.slice(0, 10).map(({ line }) => line).join(", ") + (others.length > 10 ? ", …" : "");
    const hint = others.length ? `Also wrong: line${others.length > 1 ? "s" : ""} ${also}` : undefined;
    throw new InputError(error.message, { hint: [error.hint, hint].filter(Boolean).join(". ") || undefined });
  }
  if (probes.length === 0) throw new InputError(`${name} holds no probe`);
  return { name, probes, warnings };
}

function parseLine(raw: string, line: number, where: string, warnings: string[]): PackProbe {
  let value: unknown;
  try {
    value = JSON.parse(raw);
  } catch (cause) {
    throw new InputError(`${where} is not JSON: ${(cause as Error).message.split("\n")[0]}`, { cause });
  }
  if (!isObject(value)) throw new InputError(`${where} is not an object with expect, prompt and answer`);
  refuseDuplicateKeys(raw, where);
  const known = Object.keys(schema.shape);
  for (const key of Object.keys(value).filter((key) => !known.includes(key))) {
    const meant = nearest(key, known.filter((name) => !(name in value)));
    warnings.push(`${where} has an unknown key ${show(key)}${meant ? `; is "${meant}" meant` : ""}`);
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new InputError(`${where} ${parsed.error.issues[0].message}`);
  const { expect, subject, answer: answers = [], rival, id, name } = parsed.data;
  const { mode = answers.length ? "prefix" : "exact" } = parsed.data;
  if (answers.length === 0) {
    if (expect === "change") {
      throw new InputError(`${where} has no "answer"`, { hint: "Only a probe to keep can do without" });
    }
    if (mode !== "exact" && mode !== "token") {
      throw new InputError(`${where} has the mode "${mode}", which needs an "answer"`);
    }
  }
  if (mode === "rank" && rival === undefined) {
    throw new InputError(`${where} has the mode "rank", which needs a "rival"`);
  }
  if (mode !== "rank" && rival !== undefined) {
    warnings.push(`${where} has a "rival", which only the mode "rank" compares with`);
  }
  const prompt = filled(parsed.data.prompt, subject, where);
  return {
    line,
    ...(id === undefined ? {} : { id }),
    ...(name === undefined ? {} : { name }),
    expect,
    prompt,
    answers: answers.map((one) => one.trim()),
    ...(rival === undefined ? {} : { rival: rival.trim() }),
    mode,
  };
}

/** The prompt with its subject, as continuations follow it. */
function filled(prompt: string, subject: string | undefined, where: string): string {
  const slots = prompt.split("{}").length - 1;
  if (slots > 1) throw new InputError(`${where} has ${slots} "{}" in its prompt; at most one is allowed`);
  if (slots === 1 && subject === undefined) {
    throw new InputError(`${where} has "{}" in its prompt and no "subject" for it`);
  }
  if (slots === 0 && subject !== undefined && !prompt.includes(subject.trim())) {
    throw new InputError(`${where} has a subject that is not in its prompt: ${show(subject)}`, {
      hint: "Write {} where the subject goes",
    });
  }
  return (slots === 1 ? fill(prompt, subject!.trim()).text : prompt).replace(/ +$/, "");
}

/** A probe that asks no more than that the next token of a prompt stays what it is. */
export function keepProbe(prompt: string): PackProbe {
  return { line: 0, expect: "keep", prompt: prompt.replace(/ +$/, ""), answers: [], mode: "token" };
}

/** What a probe is called: its name, its id, or its prompt. */
export function probeName({ name, id, prompt }: PackProbe): string {
  return name ?? id ?? prompt;
}
