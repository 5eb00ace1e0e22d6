/**
 * CounterFact in ROME's layout (Meng et al. 2022; guide section 13.1): also multi-CounterFact, the portability
 * and locality files that keep its records, and atlas' own set with its two-hop questions.
 */
import { z } from "npm:zod@4.6.7";
import { fill } from "../../editors/requests.ts";
import { isObject } from "../../engine/io/json.ts";
import {
  check,
  generationProbes,
  id,
  type Layout,
  makeRequest,
  newFact,
  optionalText,
  probe,
  sameObject,
  sidesOf,
  text,
  textOrTexts,
  texts,
} from "./layout.ts";

const twoHop = z.array(z.object({ prompt: text, answer_before: text, answer_after: text })).nullish();

const schema = z.object({
  case_id: id,
  requested_rewrite: z.object({
    prompt: text,
    subject: text,
    target_new: z.object({ str: text }),
    target_true: z.object({ str: text }),
  }),
  paraphrase_prompts: texts,
  neighborhood_prompts: texts,
  attribute_prompts: texts,
  generation_prompts: texts,
  two_hop: twoHop,
  distracting_neighborhood_prompts: texts,
  alternative_subject: textOrTexts,
  portability: z.object({ "New Question": text, "New Answer": text }).nullish(),
  unrelated_relation: z.object({ question: text, object: optionalText }).nullish(),
});

export const counterFact: Layout = {
  name: "CounterFact (ROME)",
  keys: ["requested_rewrite", "paraphrase_prompts", "neighborhood_prompts", "generation_prompts"],
  recognise: ({ requested_rewrite }) => isObject(requested_rewrite),
  read(record, context) {
    const r = check(schema, record);
    const { prompt, subject, target_new, target_true } = r.requested_rewrite;
    const request = makeRequest({ prompt, subject, target: target_new.str, true: target_true.str }, context);
    const { target, rival } = sidesOf(request);
    const hop = r.portability, other = r.unrelated_relation;
    return {
      id: r.case_id,
      requests: [request],
      ...(r.alternative_subject.length && { subjectAliases: r.alternative_subject }),
      probes: [
        ...newFact(request),
        ...newFact(request, "paraphrase", r.paraphrase_prompts),
        ...generationProbes(r.generation_prompts),
        ...sameObject(request, "neighbour", r.neighborhood_prompts),
        ...r.attribute_prompts.map((prompt) =>
          probe("attribute", prompt, [[target]], "unchanged", { rival })
        ),
        ...(r.two_hop ?? []).map((q) =>
          probe("reasoning", q.prompt, [[q.answer_after.trim()]], "answer", {
            group: "two-hop",
            rival: q.answer_before.trim(),
          })
        ),
        ...sameObject(request, "distract", r.distracting_neighborhood_prompts),
        ...newFact(
          request,
          "alias",
          r.alternative_subject.map((name) => fill(request.prompt, name).text),
          { group: "subject-replace" },
        ),
        ...(hop
          ? [
            probe("reasoning", hop["New Question"], [[hop["New Answer"].trim()]], "answer", {
              group: "one-hop",
            }),
          ]
          : []),
        ...(other?.object?.trim()
          ? [
            probe("relation", other.question, [[other.object.trim()]], "unchanged", {
              group: "other-attribution",
            }),
          ]
          : []),
      ],
    };
  },
};

const easyEditSchema = z.object({
  case_id: id,
  prompt: text,
  subject: text,
  target_new: text,
  ground_truth: text,
  rephrase_prompt: text,
  locality_prompt: text,
  locality_ground_truth: text,
});

/** CounterFact in EasyEdit's layout (guide section 13.2): flat, with one rephrase prompt and one neighbour. */
export const counterFactEasyEdit: Layout = {
  name: "CounterFact (EasyEdit)",
  keys: ["case_id", "prompt", "subject", "target_new", "ground_truth", "rephrase_prompt", "locality_prompt"],
  recognise: (r) =>
    "case_id" in r && "rephrase_prompt" in r && "locality_prompt" in r &&
    // The neighbour's answer is always the true object; in EasyEdit's zsRE it is that of another question.
    r.locality_ground_truth === r.ground_truth && typeof r.ground_truth === "string",
  read(record, context) {
    const r = check(easyEditSchema, record);
    const { prompt, subject } = r;
    const request = makeRequest({ prompt, subject, target: r.target_new, true: r.ground_truth }, context);
    const { target } = sidesOf(request);
    return {
      id: r.case_id,
      requests: [request],
      probes: [
        ...newFact(request),
        ...newFact(request, "paraphrase", [r.rephrase_prompt]),
        probe("neighbour", r.locality_prompt, [[r.locality_ground_truth.trim()]], "unchanged", {
          rival: target,
        }),
      ],
    };
  },
  notes: () => [
    "The one rephrase prompt was drawn from CounterFact's paraphrase and generation prompts together, mostly from " +
    "the latter: generality on this file is not CounterFact's PS",
    "NS is of one neighbour a record instead of ten",
  ],
  gives: () => {
    const why = "its rephrase prompts are paraphrase and generation prompts mixed";
    return { not: { PS: why, PM: why, Score: "it has no PS" } };
  },
};
