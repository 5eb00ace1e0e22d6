/**
 * The user's own facts, in JSON, JSONL or CSV: `prompt` (with {} for the subject, or with the subject in it),
 * `subject`, `target`; if there are any, `true`, `rephrase`, `neighbours`, `locality`, `aliases`, `references`.
 *
 * `neighbours` are prompts about other subjects whose true answer is `true` too; `locality` are prompts about
 * anything else with their own answers, `{ prompt, answer }`. In tables a cell holds several with " | "
 * between them, and locality as "prompt => answer".
 */
import { z } from "npm:zod@4.6.7";
import { fill } from "../../editors/requests.ts";
import { InputError } from "../../engine/io/errors.ts";
import {
  check,
  type Fields,
  id,
  type Layout,
  makeRequest,
  newFact,
  optionalText,
  probe,
  sameObject,
  text,
  textOrTexts,
} from "./layout.ts";

const asked = z.array(
  z.union(
    [text, z.object({ prompt: text, answer: text })],
    'is neither { "prompt", "answer" } nor "prompt => answer"',
  ),
).nullish();

const schema = z.object({
  id,
  prompt: text,
  subject: text,
  target: text,
  true: optionalText,
  rephrase: textOrTexts,
  neighbours: textOrTexts,
  locality: asked,
  aliases: textOrTexts,
  references: textOrTexts,
});

/** Other tools' and spellings' names of these fields. */
const NAMES: Record<string, string> = {
  case_id: "id",
  target_new: "target",
  new: "target",
  target_true: "true",
  ground_truth: "true",
  paraphrase: "rephrase",
  paraphrases: "rephrase",
  paraphrase_prompts: "rephrase",
  rephrases: "rephrase",
  neighbour: "neighbours",
  neighbors: "neighbours",
  neighborhood_prompts: "neighbours",
  alias: "aliases",
  subject_aliases: "aliases",
};

function canonical(record: Fields): Fields {
  return Object.fromEntries(
    Object.entries(record).map(([key, value]) => {
      const name = key.trim().toLowerCase();
      // ROME's nesting of a flat field.
      const flat = /^target_(new|true)$/.test(name) && (value as { str?: unknown } | null)?.str;
      const field = NAMES[name] ?? name;
      return [field, flat || (LISTS.has(field) && typeof value === "string" ? cells(value) : value)];
    }),
  );
}

const LISTS = new Set(["rephrase", "neighbours", "locality", "aliases"]);

/** Several texts in one. */
function cells(value: string): string[] {
  return value.split(" | ").map((item) => item.trim()).filter((item) => item !== "");
}

export const own: Layout = {
  name: "facts (prompt, subject, target)",
  keys: ["prompt", "subject", "target"],
  recognise: (record) => {
    const r = canonical(record);
    return "prompt" in r && ("target" in r || "subject" in r);
  },
  read(record, context) {
    const r = check(schema, canonical(record));
    const request = makeRequest(
      { prompt: r.prompt, subject: r.subject, target: r.target, true: r.true },
      context,
    );
    const { neighbours, aliases } = r;
    if (neighbours.length && !request.true) {
      throw new InputError('The record has "neighbours" but no "true", which is their answer');
    }
    return {
      id: r.id,
      requests: [request],
      ...(aliases.length && { subjectAliases: aliases }),
      ...(r.references.length && { references: r.references }),
      probes: [
        ...newFact(request),
        ...newFact(request, "paraphrase", r.rephrase),
        ...newFact(request, "alias", aliases.map((name) => fill(request.prompt, name).text)),
        ...sameObject(request, "neighbour", neighbours),
        ...questions(r.locality).map(({ prompt, answer }) =>
          probe("unrelated", prompt, [[answer.trim()]], "unchanged")
        ),
      ],
    };
  },
};

function questions(given: z.infer<typeof asked>): { prompt: string; answer: string }[] {
  return (given ?? []).map((item) => {
    if (typeof item !== "string") return item;
    const [prompt, answer, ...rest] = item.split("=>").map((part) => part.trim());
    if (!prompt || !answer || rest.length) {
      throw new InputError(
        `The record has a "locality" without an answer: "${item}" (write "prompt => answer")`,
      );
    }
    return { prompt, answer };
  });
}
