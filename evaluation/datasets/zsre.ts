/**
 * zsRE in the layouts of MEND (guide sections 4 and 13.3): the JSON of `src`, `alt`, `answers` and `loc` that ROME,
 * MEMIT and EasyEdit share, with EasyEdit's portability files, and the original JSONL.
 *
 * The target is `alt`, a wrong answer, as in MEND and EasyEdit; with `target: "answer"` it is the right one,
 * as in ROME and MEMIT. The unrelated question loses its prefix "nq question: ", a mark of the data set that no
 * one would say to a model, and gets the question mark that ROME adds (ROME keeps the prefix).
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";
import type { Probe } from "../cases.ts";
import {
  check,
  type Fields,
  id,
  type Layout,
  type LayoutOptions,
  makeRequest,
  newFact,
  optionalText,
  probe,
  type Published,
  sidesOf,
  text,
  textOrTexts,
} from "./layout.ts";

const schema = z.object({
  case_id: id,
  subject: text,
  src: text,
  answers: textOrTexts,
  alt: optionalText,
  rephrase: textOrTexts,
  loc: optionalText,
  loc_ans: optionalText,
  portability: z.object({ "New Question": text, "New Answer": text }).nullish(),
  "inverse question": optionalText,
  alter_subject_question: textOrTexts,
});

const TARGETS = {
  alt: "The target is `alt`, a wrong answer, as in MEND and EasyEdit; ROME and MEMIT edit to the right one",
  answer:
    "The target is the right answer, as in ROME and MEMIT, so the unedited model is right now and then; " +
    "MEND and EasyEdit edit to `alt`",
};

function gives({ target = "alt" }: LayoutOptions): Published {
  return target === "alt"
    ? {
      families: ["mend"],
      not: { "zsre.*": "its targets are wrong answers; read it with the answers as targets" },
    }
    : {
      families: ["zsre"],
      not: { "mend.*": "its targets are right answers; read it with `alt` as the target" },
    };
}

export const zsre: Layout = {
  name: "zsRE (MEND)",
  keys: ["subject", "src", "answers", "alt", "rephrase", "loc", "loc_ans"],
  recognise: (r) => "src" in r && "answers" in r,
  read(record, context) {
    const r = check(schema, record);
    const { target, truth } = sides(r.alt, r.answers, context.options);
    const request = makeRequest({ prompt: r.src, subject: r.subject, target, true: truth }, context);
    const { rival } = sidesOf(request);
    const hop = r.portability, inverse = r["inverse question"];
    // What follows from `alt` does not follow from the right answer.
    const follows = context.options.target !== "answer";
    return {
      id: r.case_id,
      requests: [request],
      probes: [
        ...newFact(request, "rewrite", undefined, {
          aliases: follows ? [] : r.answers.slice(1).map((answer) => answer.trim()),
        }),
        ...newFact(request, "paraphrase", r.rephrase),
        ...unrelated(r.loc, r.loc_ans),
        ...(follows && hop
          ? [
            probe("reasoning", hop["New Question"], [[hop["New Answer"].trim()]], "answer", {
              group: "one-hop",
            }),
          ]
          : []),
        ...(follows && inverse?.trim()
          ? [probe("logic", inverse, [[request.subject]], "answer", { group: "inverse" })]
          : []),
        ...r.alter_subject_question.map((prompt) =>
          probe("alias", prompt, [[target.trim()]], "new", { group: "subject-replace", rival })
        ),
      ],
    };
  },
  notes: ({ target = "alt" }) => [
    TARGETS[target],
    'Unrelated questions are asked without the prefix "nq question: "; ROME keeps it',
  ],
  gives,
};

/** Which answer the edit asks for, and which is the true one beside it. */
function sides(alt: string | null | undefined, answers: readonly string[], options: LayoutOptions) {
  const [truth] = answers;
  if (options.target === "answer") {
    if (truth === undefined) throw new InputError("The record has no answer to correct the model to");
    return { target: truth, truth: undefined };
  }
  if (!alt?.trim()) throw new InputError("The record has an empty alt, the target");
  return { target: alt, truth: answers };
}

/** The question about something else, whose answer should stay. */
export function unrelated(question: string | null | undefined, answer: string | null | undefined): Probe[] {
  if (!question?.trim() || !answer?.trim()) return [];
  const bare = question.replace(/^\s*nq question:\s*/i, "").trimEnd();
  return [probe("unrelated", /[?.!]$/.test(bare) ? bare : `${bare}?`, [[answer.trim()]], "unchanged")];
}

const originalSchema = z.object({
  id,
  input: text,
  subject: optionalText,
  meta: z.object({ sub_surface: textOrTexts }).nullish(),
  alternatives: textOrTexts,
  filtered_rephrases: textOrTexts,
  output: z.array(z.object({ answer: optionalText })),
});

export const zsreOriginal: Layout = {
  name: "zsRE (MEND, original JSONL)",
  keys: ["input", "output", "alternatives", "filtered_rephrases"],
  recognise: (r: Fields) =>
    "input" in r && "output" in r && ("alternatives" in r || "filtered_rephrases" in r),
  read(record, context) {
    const r = check(originalSchema, record);
    const answers = r.output.flatMap(({ answer }) => answer?.trim() ? [answer] : []);
    const { target, truth } = sides(r.alternatives[0], answers, context.options);
    const subject = r.subject?.trim() || r.meta?.sub_surface[0];
    if (!subject) {
      throw new InputError('The record names no subject (neither "subject" nor "meta.sub_surface")');
    }
    const request = makeRequest({ prompt: r.input, subject, target, true: truth }, context);
    return {
      id: r.id,
      requests: [request],
      probes: [...newFact(request), ...newFact(request, "paraphrase", r.filtered_rephrases)],
    };
  },
  notes: ({ target = "alt" }) => [
    TARGETS[target],
    "Of several alternatives the first is the target; MEND draws one and uses one of the rephrases a time",
    "It has no unrelated questions: MEND takes them from a file of Natural Questions",
  ],
  gives,
};
