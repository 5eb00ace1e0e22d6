/**
 * RippleEdits (Cohen et al. 2024; guide sections 7.3 and 13.8): six criteria, each a list of tests with conditions.
 *
 * An edit is a sentence without marks; entities have ids. Subject and target are recovered exactly or not at
 * all: from labels (the answers of queries carry the labels of their ids), and from the relations' templates,
 * which are what the prompts of one relation with different subjects have in common.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";
import { isObject } from "../../engine/io/json.ts";
import type { Probe, ProbeKind, ProbeTest } from "../cases.ts";
import {
  check,
  type Fields,
  id,
  type Layout,
  makeRequest,
  newFact,
  optionalText,
  probe,
  text,
  texts,
} from "./layout.ts";
import { type Names, readNames, recover, telling } from "./ripple_names.ts";

/** The criteria as the files spell them, one of them in two ways. */
const CRITERIA: [key: string, kind: ProbeKind, group?: string][] = [
  ["Logical_Generalization", "logic"],
  ["Compositionality_I", "reasoning"],
  ["Compositionality_II", "reasoning"],
  ["Subject_Aliasing", "alias"],
  ["Forgetfulness", "forget"],
  ["Relation_Specifity", "relation", "Relation_Specificity"],
  ["Relation_Specificity", "relation"],
];

const query = z.object({
  prompt: text,
  answers: z.array(z.object({ value: z.union([text, z.number().transform(String)]), aliases: texts })),
});

const tests = z.array(z.object({
  test_queries: z.array(query),
  test_condition: z.enum(["OR", "AND"], "is neither OR nor AND").nullish(),
  condition_queries: z.array(query).nullish(),
})).nullish();

const fact = z.object({ prompt: text, subject_id: id, target_id: id, relation: optionalText });

const schema = z.object({ case_id: id, edit: fact.extend({ original_fact: fact.nullish() }) });

export const ripple: Layout = {
  name: "RippleEdits",
  keys: ["edit", ...CRITERIA.slice(0, 6).map(([key]) => key)],
  recognise: (r: Fields) => isObject(r.edit) && CRITERIA.some(([key]) => key in r),
  prepare: readNames,
  read(record, context) {
    const r = check(schema, record);
    const { edit } = r;
    const found = recover(edit, record, context.prepared as Names);
    if (typeof found === "string") throw new InputError(found);
    const request = makeRequest(found, context);
    const criteria = CRITERIA.flatMap(([key, kind, group = key]) => {
      const list = check(z.object({ [key]: tests }), record)[key] ?? [];
      return list.flatMap((item, i) => testProbes(item, kind, group, i));
    });
    return {
      id: r.case_id,
      requests: [request],
      probes: [...newFact(request, "rewrite", undefined, { aliases: found.aliases }), ...criteria],
    };
  },
  notes: () => ["Subjects and targets are recovered from the sentences by labels and templates"],
  gives: () => ({ families: ["ripple"] }),
};

function testProbes(
  item: NonNullable<z.infer<typeof tests>>[number],
  kind: ProbeKind,
  group: string,
  index: number,
): Probe[] {
  const test: ProbeTest = {
    id: `${group} ${index + 1}`,
    combine: item.test_condition === "AND" ? "all" : "any",
    conditions: (item.condition_queries ?? []).map((query) => ({
      prompt: query.prompt.trimEnd(),
      answers: answersOf(query),
    })),
  };
  return item.test_queries.flatMap((query) => {
    const answers = answersOf(query);
    return answers.length ? [probe(kind, query.prompt, answers, "answer", { group, test })] : [];
  });
}

function answersOf({ answers }: z.infer<typeof query>): string[][] {
  return answers.map(({ value, aliases }) => telling([value, ...aliases])).filter((list) => list.length);
}
