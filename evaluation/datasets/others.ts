/**
 * QAEdit (guide section 13.6), KnowEdit's ConvSent and Sanitation (sections 9 and 13.5), and sets without new
 * targets, which are recognised and refused: ROME's known_1000 and the LRE relations.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";
import { isObject } from "../../engine/io/json.ts";
import {
  answers,
  check,
  type Fields,
  id,
  type Layout,
  makeRequest,
  newFact,
  optionalText,
  probe,
  text,
  textOrTexts,
} from "./layout.ts";
import { unrelated } from "./zsre.ts";

const qaSchema = z.object({
  id,
  prompt: text,
  subject: text,
  target: textOrTexts,
  rephrase: textOrTexts,
  locality: z.array(z.object({ loc: optionalText, loc_ans: optionalText })).nullish(),
});

export const qaEdit: Layout = {
  name: "QAEdit",
  keys: ["prompt", "target", "subject", "rephrase", "locality", "source"],
  recognise: (r) =>
    "prompt" in r && "target" in r && Array.isArray(r.locality) &&
    r.locality.some((l) => isObject(l) && "loc" in l),
  read(record, context) {
    const r = check(qaSchema, record);
    const [target = "", ...aliases] = r.target;
    const request = makeRequest({ prompt: r.prompt, subject: r.subject, target }, context);
    return {
      id: r.id,
      requests: [request],
      probes: [
        ...newFact(request, "rewrite", undefined, { aliases: aliases.map((alias) => alias.trim()) }),
        ...newFact(request, "paraphrase", r.rephrase),
        ...(r.locality ?? []).flatMap(({ loc, loc_ans }) => unrelated(loc, loc_ans)),
      ],
    };
  },
  notes: () => ["QAEdit is published with greedy texts and a judge (gen.* are the scores without one)"],
};

const sentimentSchema = z.object({ ent: text, pos: textOrTexts, neg: textOrTexts });

const OPINIONS = ["What do you think of {}?", "How do you feel about {}?", "What is your opinion on {}?"];

/** A dialogue model's opinion: the target is the first positive reply, its rival the first negative one. */
export const convSent: Layout = {
  name: "KnowEdit (ConvSent)",
  keys: ["ent", "pos", "neg"],
  recognise: (r) => "ent" in r && "pos" in r && "neg" in r,
  read(record, context) {
    const r = check(sentimentSchema, record);
    const [target = ""] = r.pos;
    const request = makeRequest({ prompt: OPINIONS[0], subject: r.ent, target, true: r.neg[0] }, context);
    const about = (name: string) => OPINIONS.slice(1).map((question) => question.replace("{}", () => name));
    const other = sentimentSchema.safeParse(context.other(1)).data;
    const reply = other?.pos[0] ?? other?.neg[0];
    return {
      requests: [request],
      probes: [
        ...newFact(request),
        ...newFact(request, "paraphrase", about(r.ent)),
        ...(other && reply && other.ent !== r.ent
          ? [probe("unrelated", OPINIONS[0].replace("{}", () => other.ent), [[reply.trim()]], "unchanged")]
          : []),
      ],
    };
  },
  notes: () => [
    "Every edit is towards the positive replies; the questions are ours, for the file has replies alone",
  ],
  gives: () => ({
    not: {
      "convsent.z_sent": "it compares the likelihoods of all replies; ES compares the first of each side",
    },
  }),
};

const forgetSchema = z.object({ question: text, target_new: text, ground_truth: answers.nullish() });

/** TriviaQA sanitation: an answer is replaced by a refusal. */
export const sanitation: Layout = {
  name: "KnowEdit (Sanitation)",
  keys: ["K_F", "K_R"],
  member: "K_F",
  recognise: (file) => Array.isArray(file.K_F),
  prepare: (_records, file) =>
    (Array.isArray(file?.K_R) ? file.K_R : []).flatMap((item) => {
      const { success, data } = retainSchema.safeParse(item);
      return success ? unrelated(data.question, data.ground_truth[0]?.[0]) : [];
    }),
  read(record, { index, prepared, ...context }) {
    const r = check(forgetSchema, record);
    const truth = r.ground_truth?.[0];
    // Sanitation names no subject.
    const request = makeRequest(
      { prompt: "{}", subject: r.question, target: r.target_new, true: truth },
      context,
    );
    const retained = prepared as ReturnType<typeof unrelated>;
    return {
      requests: [request],
      probes: [...newFact(request), ...(retained.length ? [retained[index % retained.length]] : [])],
    };
  },
  notes: () => [
    "Sanitation names no subjects: the whole question stands for it, so that locating methods edit at its last token",
    "Each question to forget is paired with one to retain (K_R), in turn, as in EasyEdit",
  ],
};

const retainSchema = z.object({ question: text, ground_truth: answers });

const NO_TARGET = "The record has no new target, so there is nothing to edit towards";

export const known1000: Layout = {
  name: "known facts (ROME's known_1000)",
  keys: ["known_id", "subject", "attribute", "template", "prediction", "prompt"],
  recognise: (r: Fields) => "attribute" in r && "template" in r && "prediction" in r,
  read: () => {
    throw new InputError(`${NO_TARGET}; known facts are for causal tracing`);
  },
};

export const lre: Layout = {
  name: "LRE relation",
  keys: ["name", "prompt_templates", "properties", "samples"],
  member: "samples",
  recognise: (file: Fields) => Array.isArray(file.samples) && Array.isArray(file.prompt_templates),
  read: () => {
    throw new InputError(`${NO_TARGET}; LRE relations are for probing`);
  },
};
