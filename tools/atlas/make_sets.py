"""Makes atlas's evaluation sets from the fact table and the trained model's right answers.

`counterfact.json` has ROME's CounterFact layout (plus `two_hop`), `zsre.json` and `train.json` MEND's
zsRE layout. Everything is chosen by hashes, so the same table and weights give the same files. The
subjects of the three sets are disjoint. `atlas/README.md` describes the keys.

    python tools/atlas/make_sets.py
"""

import argparse
import collections
import pathlib

import torch

from common import fnv1a, load, split, write_rows
from evaluate import load_model, right

NEIGHBOURS = 10


def by_hash(items, salt):
    """The items in the order of a hash of salt and item."""
    return sorted(items, key=lambda item: (fnv1a(f"{salt}\t{item}"), str(item)))


class Table:
    """The facts with their prompts, and which of the prompts the model answers right."""

    def __init__(self, facts, relations, model, tokenizer):
        self.facts, self.relations = [tuple(f) for f in facts], relations
        self.object_of = {(s, r): o for s, r, o in self.facts}
        self.subjects_of = collections.defaultdict(list)  # (relation, object) -> subjects
        self.facts_of = collections.defaultdict(list)  # subject -> relations
        pairs, keys = [], []
        for subject, relation, object_ in self.facts:
            self.subjects_of[relation, object_].append(subject)
            self.facts_of[subject].append(relation)
            for template, _ in split(subject, relation, relations)[0]:
                pairs.append((template.replace("{}", subject), object_))
                keys.append((subject, relation, template))
        self.known = {key for key, hit in zip(keys, right(model, tokenizer, pairs)) if hit}

    def prompts(self, subject, relation, question):
        """Trained templates of that type that the model answers right, in hash order."""
        templates = [t for t, q in split(subject, relation, self.relations)[0]
                     if q == question and (subject, relation, t) in self.known]
        return by_hash(templates, subject)

    def withheld(self, subject, relation, question):
        return [t for t, q in split(subject, relation, self.relations)[1] if q == question]

    def second_hops(self, relation, old, new):
        """Relations of which both objects are subjects, with different answers that the model knows."""
        hops = []
        for hop in self.facts_of[new]:
            before, after = self.object_of.get((old, hop)), self.object_of[new, hop]
            if before and before != after and after != old and before != new:
                if all(self.prompts(o, hop, False) for o in (old, new)):
                    hops.append(hop)
        return sorted(hops)

    def target_new(self, subject, relation, least):
        """Another object of the relation, if possible one with at least `least` subjects and a second hop."""
        old = self.object_of[subject, relation]
        objects = {o for (r, o), subjects in self.subjects_of.items() if r == relation and len(subjects) >= least}
        others = by_hash(objects - {old, subject}, subject)
        # An object that is also true of the subject under a sister relation would be no new target.
        others = [o for o in others if o not in {self.object_of[subject, r] for r in self.facts_of[subject]}]
        hopping = [o for o in others if self.second_hops(relation, old, o)]
        return (hopping or others or [None])[0]


def two_hop(table, subject, relation, old, new):
    inner = table.relations[relation]["description"].replace("{}", subject)
    out = []
    for hop in table.second_hops(relation, old, new):
        templates = [t for t in table.relations[hop]["statements"] if not t.startswith("{}")]
        out.append({
            "prompt": by_hash(templates, subject)[0].replace("{}", inner),
            "answer_before": table.object_of[old, hop], "answer_after": table.object_of[new, hop], "via": hop,
        })
    return out


def counterfact_record(table, subject, relation):
    """One record, or None where the model or the table gives too little."""
    prompts, old = table.prompts(subject, relation, False), table.object_of[subject, relation]
    new = table.target_new(subject, relation, 5)
    if not prompts or new is None:
        return None

    def others(object_, salt):
        names = [s for s in by_hash(table.subjects_of[relation, object_], subject + salt) if s != subject]
        found = [(s, table.prompts(s, relation, False)) for s in names]
        return [ps[0].replace("{}", s) for s, ps in found if ps][:NEIGHBOURS]

    neighbours = others(old, "neighbour")
    if len(neighbours) < NEIGHBOURS:
        return None
    return {
        "requested_rewrite": {
            "prompt": prompts[0], "relation_id": relation, "target_new": {"str": new},
            "target_true": {"str": old}, "subject": subject,
        },
        "paraphrase_prompts": [t.replace("{}", subject) for t in table.withheld(subject, relation, False)],
        "neighborhood_prompts": neighbours,
        "attribute_prompts": others(new, "attribute"),
        "generation_prompts": [t.replace("{}", subject) for t in prompts[1:4]] + [f"{subject} is"],
        "two_hop": two_hop(table, subject, relation, old, new),
    }


def zsre_record(table, subject, relation, pool):
    """One record; the locality question is about a fact of `pool` with another subject and relation."""
    questions, old = table.prompts(subject, relation, True), table.object_of[subject, relation]
    new = table.target_new(subject, relation, 2)
    if not questions or new is None:
        return None
    start = fnv1a(f"loc\t{relation}\t{subject}")
    for i in range(len(pool)):
        other, other_relation = pool[(start + i) % len(pool)]
        asked = table.prompts(other, other_relation, True)
        if other != subject and other_relation != relation and asked:
            break
    src = questions[0].replace("{}", subject)
    return {
        "subject": subject, "src": src, "pred": old,
        "rephrase": table.withheld(subject, relation, True)[0].replace("{}", subject),
        "alt": new, "answers": [old], "loc": asked[0].replace("{}", other),
        "loc_ans": table.object_of[other, other_relation], "cond": f"{old} >> {new} || {src}",
    }


def rounds(table, used):
    """Facts with unused subjects, one relation after the other, so that any prefix is mixed."""
    queues = collections.defaultdict(list)
    for subject, relation in by_hash([(s, r) for s, r, _ in table.facts if s not in used], "order"):
        queues[relation].append((subject, relation))
    while any(queues.values()):
        for relation in sorted(queues, key=lambda r: int(r[1:])):
            if queues[relation]:
                yield queues[relation].pop(0)


def collect(table, used, count, make):
    """The first `count` records that `make` gives, one a subject; adds their subjects to `used`."""
    records = []
    for subject, relation in rounds(table, used):
        if len(records) == count:
            break
        record = None if subject in used else make(subject, relation)
        if record:
            used.add(subject)
            records.append(record)
    return records


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("atlas/data"))
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("atlas/model"))
    parser.add_argument("--counterfact", type=int, default=600)
    parser.add_argument("--zsre", type=int, default=400)
    parser.add_argument("--train", type=int, default=1800)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    facts, relations, _ = load(args.data)
    table = Table(facts, relations, *load_model(args.model))

    # What two-hop questions go through is kept out of the edits: it must stay true.
    used = {s for s, r, _ in table.facts if r == "P38"}
    records = collect(table, used, args.counterfact, lambda s, r: counterfact_record(table, s, r))
    records = [{"case_id": i} | record for i, record in enumerate(records)]
    write_rows(args.data / "counterfact.json", records)
    for name, count in (("zsre", args.zsre), ("train", args.train)):
        pool = by_hash([(s, r) for s, r, _ in table.facts if s not in used], name)
        rows = collect(table, used, count, lambda s, r: zsre_record(table, s, r, pool))
        write_rows(args.data / f"{name}.json", rows)
        print(name, len(rows))
    hops = sum(bool(r["two_hop"]) for r in records)
    print("counterfact", len(records), "with two-hop questions", hops)


if __name__ == "__main__":
    main()
