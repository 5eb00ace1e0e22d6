/**
 * Examples from atlas' own facts. Facts about subjects that its evaluation sets edit are left out altogether. A new
 * answer is another object of the same relation; the outer text says the fact in another of the relation's wordings;
 * what must stay is another subject's fact: often with the same object, or of the same relation.
 */
import { createHash } from "node:crypto";
import { atlasData } from "../atlas/mod.ts";
import type { Asking, ExampleSource } from "./source.ts";

type Fact = [subject: string, relation: string, object: string];

/** How often the unrelated fact has the same relation and object, and how often the same relation; else it is any. */
const SAME_OBJECT = 0.4, SAME_RELATION = 0.3;
/** Every n-th subject is kept for validation. */
const VALIDATION = 12;

/** Facts to train with and, disjoint in their subjects, to validate with. */
export async function atlasSources(): Promise<{ train: ExampleSource; validation: ExampleSource }> {
  const [factsText, relationsText, counterfact, zsre] = await Promise.all(
    ["facts.json", "relations.json", "counterfact.json", "zsre.json"].map(atlasData),
  );
  const edited = new Set<string>([
    ...JSON.parse(counterfact).map((r: { requested_rewrite: { subject: string } }) =>
      r.requested_rewrite.subject
    ),
    ...JSON.parse(zsre).map((r: { subject: string }) => r.subject),
  ]);
  const facts = (JSON.parse(factsText) as Fact[]).filter(([subject]) => !edited.has(subject));
  const relations: Record<string, { statements: string[]; questions: string[] }> = JSON.parse(relationsText);
  const subjects = [...new Set(facts.map(([subject]) => subject))];
  const held = new Set(subjects.filter((_, i) => i % VALIDATION === VALIDATION - 1));
  const hash = createHash("sha256").update(factsText).update(relationsText).digest("hex");
  const wordings = (
    relation: string,
  ) => [...relations[relation].statements, ...relations[relation].questions];
  const pick = <T>(list: readonly T[], random: () => number) => list[Math.floor(random() * list.length)];
  const ask = ([subject, relation, object]: Fact, random: () => number): Asking => (
    { prompt: pick(wordings(relation), random).replace("{}", subject), answer: object }
  );
  const objects = new Map<string, string[]>();
  for (const [relation, of] of Map.groupBy(facts, ([, relation]) => relation)) {
    objects.set(relation, [...new Set(of.map(([, , object]) => object))]);
  }

  const source = (own: Fact[], name: string): ExampleSource => {
    const ofRelation = Map.groupBy(own, ([, relation]) => relation);
    const ofObject = Map.groupBy(own, ([, relation, object]) => `${relation} ${object}`);
    const editable = own.filter(([, relation]) => objects.get(relation)!.length > 1);
    return {
      name,
      hash,
      count: editable.length,
      notes: [],
      make(record, random) {
        const fact = editable[record];
        const [subject, relation, object] = fact;
        const others = (list: Fact[]) => list.filter((f) => f[0] !== subject);
        const answer = pick(objects.get(relation)!.filter((o) => o !== object), random);
        const edit = { ...ask(fact, random), answer };
        let outer = edit;
        while (outer.prompt === edit.prompt) outer = { ...ask(fact, random), answer };
        const draw = random();
        const near = draw < SAME_OBJECT
          ? others(ofObject.get(`${relation} ${object}`)!)
          : draw < SAME_OBJECT + SAME_RELATION
          ? others(ofRelation.get(relation)!)
          : [];
        const loc = ask(pick(near.length ? near : others(own), random), random);
        return { edit, outer, loc, before: object };
      },
    };
  };
  return {
    train: source(facts.filter(([subject]) => !held.has(subject)), "atlas"),
    validation: source(facts.filter(([subject]) => held.has(subject)), "atlas (held out)"),
  };
}
