/** Which facts a user wants traced, and whose embeddings set the noise. */
import { atlasData } from "../../atlas/mod.ts";
import type { TraceRequest } from "../../editors/tracing/prompt.ts";
import { InputError } from "../../engine/io/errors.ts";
import { sampleCases } from "../../evaluation/datasets/read.ts";
import { readDataset } from "../../evaluation/datasets/read.ts";

/** Facts with the name of where they come from. */
export interface Facts {
  name: string;
  requests: TraceRequest[];
}

/**
 * Reads facts: ROME's known_1000 layout (prompt, subject, attribute), or any data set that eval reads, whose true
 * objects are then the answers.
 * @throws {InputError} for an unreadable file, or one without facts
 */
export async function readFacts(path: string): Promise<Facts> {
  const name = path.split("/").at(-1)!.replace(/\.\w+$/, "");
  const known = await knownFacts(path);
  if (known) return { name, requests: known };
  const cases = sampleCases(await readDataset(path));
  const asked = cases.flatMap(({ requests }) => requests)
    .map(({ prompt, subject, true: answer }) => ({ prompt, subject, answer }));
  const seen = new Map(asked.map((request) => [`${request.subject}\n${request.prompt}`, request]));
  return { name, requests: [...seen.values()] };
}

/** Facts in known_1000's layout; undefined for any other file or name. */
async function knownFacts(path: string): Promise<TraceRequest[] | undefined> {
  if (!path.endsWith(".json")) return undefined;
  const text = await Deno.readTextFile(path).catch(() => undefined);
  if (text === undefined) return undefined;
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(list) || list.length === 0 || typeof list[0]?.attribute !== "string") return undefined;
  return list.map((item, i) => {
    const { prompt, subject, attribute } = item ?? {};
    for (const [field, value] of Object.entries({ prompt, subject, attribute })) {
      if (typeof value !== "string" || value.trim() === "") {
        throw new InputError(`Record ${i + 1} of ${path} has no "${field}"`);
      }
    }
    return { prompt, subject, answer: attribute };
  });
}

/** Subjects of atlas' facts: people, places and works of all kinds, for the noise of a single prompt. */
export async function commonSubjects(): Promise<string[]> {
  const facts: [subject: string, relation: string, object: string][] = JSON.parse(
    await atlasData("facts.json"),
  );
  return [...new Set(facts.map(([subject]) => subject))];
}
