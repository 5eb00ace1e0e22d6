/**
 * KnowEdit (Zhang et al. 2024; guide sections 7.2 and 13.5) and EasyEdit's flat requests: the sets WikiData_recent,
 * WikiData_counterfact and ZsRE share a layout; WikiBio has another one.
 */
import { z } from "npm:zod@4.6.7";
import { isObject } from "../../engine/io/json.ts";
import type { Probe, ProbeKind } from "../cases.ts";
import {
  answers,
  check,
  id,
  type Layout,
  makeRequest,
  newFact,
  optionalText,
  probe,
  type ReadContext,
  text,
  textOrTexts,
} from "./layout.ts";
import { unrelated } from "./zsre.ts";

const query = z.object({ prompt: textOrTexts, ground_truth: answers });
/** Questions by group; EasyEdit's own requests have one object where the files have a list. */
const groups = z.record(
  z.string(),
  z.union([z.array(query), query], "is no list of prompts with a ground_truth").nullish(),
).nullish();

const KINDS: Record<string, ProbeKind> = {
  Subject_Aliasing: "alias",
  Reasoning: "reasoning",
  Logical_Generalization: "logic",
  Relation_Specificity: "relation",
  Forgetfulness: "forget",
};

/** Probes of a record's `portability` or `locality`. */
function groupProbes(
  given: z.infer<typeof groups>,
  expect: Probe["expect"],
  otherwise: ProbeKind,
  context: ReadContext,
): Probe[] {
  return Object.entries(given ?? {}).flatMap(([group, queries]) =>
    [queries ?? []].flat().flatMap(({ prompt, ground_truth }) => {
      if (ground_truth.length === 0) {
        context.remark("questions without an answer, which are left out");
        return [];
      }
      return prompt.map((text) => probe(KINDS[group] ?? otherwise, text, ground_truth, expect, { group }));
    })
  );
}

const schema = z.object({
  case_id: id,
  subject: text,
  prompt: text,
  target_new: textOrTexts,
  ground_truth: answers.nullish(),
  rephrase_prompt: textOrTexts,
  rephrase: textOrTexts,
  locality_prompt: optionalText,
  locality_ground_truth: answers.nullish(),
  portability_prompt: optionalText,
  portability_ground_truth: answers.nullish(),
  portability: groups,
  locality: groups,
});

function read(record: Record<string, unknown>, context: ReadContext) {
  const r = check(schema, record);
  // Of alternative spellings the first is the target.
  const [target = "", ...aliases] = r.target_new;
  const truth = r.ground_truth?.[0];
  const request = makeRequest({ prompt: r.prompt, subject: r.subject, target, true: truth }, context);
  const hop = r.portability_ground_truth ?? [];
  return {
    id: r.case_id,
    requests: [request],
    probes: [
      ...newFact(request, "rewrite", undefined, { aliases: aliases.map((alias) => alias.trim()) }),
      ...newFact(request, "paraphrase", [...r.rephrase_prompt, ...r.rephrase]),
      ...groupProbes(r.portability, "answer", "reasoning", context),
      ...groupProbes(r.locality, "unchanged", "unrelated", context),
      ...unrelated(r.locality_prompt, r.locality_ground_truth?.[0]?.[0]),
      ...(r.portability_prompt?.trim() && hop.length
        ? [probe("reasoning", r.portability_prompt, hop, "answer", { group: "one-hop" })]
        : []),
    ],
  };
}

export const knowEdit: Layout = {
  name: "KnowEdit",
  keys: ["subject", "prompt", "target_new", "portability", "locality"],
  recognise: (r) => "prompt" in r && "target_new" in r && (isObject(r.portability) || isObject(r.locality)),
  read,
  notes: () => [
    "Published KnowEdit numbers use the first alias of the first answer alone; so do the teacher-forced ones " +
    "here, while those on generated text accept every alias",
  ],
};

export const easyEdit: Layout = {
  name: "zsRE (EasyEdit)",
  keys: ["subject", "prompt", "target_new", "ground_truth", "rephrase_prompt", "locality_prompt"],
  recognise: (r) => "prompt" in r && "target_new" in r && ("rephrase_prompt" in r || "locality_prompt" in r),
  read,
  gives: () => ({
    families: ["mend"],
    not: { "zsre.*": "its targets are wrong answers; ROME's zsRE has right ones" },
  }),
};

const bioSchema = z.object({
  concept: text,
  text,
  labels: textOrTexts,
  locality: groups,
});

/** WikiBio: the next sentence of a passage, to be the true one. */
export const wikiBio: Layout = {
  name: "KnowEdit (WikiBio)",
  keys: ["concept", "text", "labels", "locality"],
  recognise: (r) => "concept" in r && "text" in r && "labels" in r,
  read(record, context) {
    const r = check(bioSchema, record);
    const [target = ""] = r.labels;
    const request = makeRequest({ prompt: r.text, subject: r.concept, target }, context);
    return {
      requests: [request],
      probes: [...newFact(request), ...groupProbes(r.locality, "unchanged", "relation", context)],
    };
  },
  notes: () => ["Targets are whole sentences: scores by token say more than scores by whole answers"],
};
