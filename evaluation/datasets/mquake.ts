/**
 * MQuAKE (Zhong et al. 2023; guide sections 7.4 and 13.7): CF, CF-3k and T. A case has one to four edits, three
 * wordings of one multi-hop question that follows from them, and the links of the chain.
 */
import { z } from "npm:zod@4.6.7";
import type { ProbeTest } from "../cases.ts";
import { check, id, type Layout, makeRequest, newFact, probe, text, textOrTexts, texts } from "./layout.ts";

const hop = z.object({ question: text, cloze: text.nullish(), answer: text, answer_alias: texts });

const schema = z.object({
  case_id: id,
  requested_rewrite: z.array(z.object({
    prompt: text,
    subject: text,
    target_new: z.object({ str: text }),
    target_true: z.object({ str: text }).nullish(),
    question: textOrTexts,
  })).min(1, "is empty"),
  questions: z.array(text).min(1, "is empty"),
  answer: text.nullish(),
  new_answer: text,
  new_answer_alias: texts,
  new_single_hops: z.array(hop).nullish(),
});

export const mquake: Layout = {
  name: "MQuAKE",
  keys: ["requested_rewrite", "questions", "new_answer", "new_single_hops"],
  recognise: (r) => Array.isArray(r.requested_rewrite),
  read(record, context) {
    const r = check(schema, record);
    const requests = r.requested_rewrite.map((edit) => ({
      request: makeRequest({
        prompt: edit.prompt,
        subject: edit.subject,
        target: edit.target_new.str,
        true: edit.target_true?.str,
      }, context),
      questions: edit.question,
    }));
    const answers = [[...new Set([r.new_answer, ...r.new_answer_alias].map((name) => name.trim()))]];
    const test = (id: string, combine: ProbeTest["combine"]): ProbeTest => ({ id, combine, conditions: [] });
    return {
      id: r.case_id,
      requests: requests.map(({ request }) => request),
      probes: [
        ...requests.flatMap(({ request, questions }) => [
          ...newFact(request),
          ...newFact(request, "paraphrase", questions, { group: "question" }),
        ]),
        ...r.questions.map((question) =>
          probe("multi-hop", question, answers, "answer", {
            rival: r.answer?.trim(),
            test: test("multi-hop", "any"),
          })
        ),
        ...(r.new_single_hops ?? []).map(({ question, cloze, answer, answer_alias }) =>
          probe(
            "single-hop",
            cloze ?? question,
            [[answer, ...answer_alias].map((name) => name.trim())],
            "answer",
            {
              test: test("single-hops", "all"),
            },
          )
        ),
      ],
    };
  },
  notes: () => [
    "Multi-hop questions are asked as they are; published numbers put examples before them",
    "MQuAKE's versions differ in labels: CF-3k-v2 replaces CF-3k, and an audit (MQuAKE-Remastered) found a third or " +
    "more of the questions damaged; say which file was used",
  ],
  gives: () => ({
    families: ["mquake"],
    not: { PS: "its second wordings are questions made by a program, not CounterFact's paraphrases" },
  }),
};
