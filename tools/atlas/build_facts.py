"""Builds atlas's fact table: (subject, relation, object) triples, no sentences.

The triples come from the CounterFact files (subject, `target_true`, `relation_id`) and the LRE
factual relations of the development data, plus `geography.json` next to this file. A CounterFact
file without relation ids borrows them: a prompt with the subject cut out that occurs with ids in
`counterfact-500.json` names its relation, and where it names several the object's kind decides.
Prompts serve that look-up only; nothing of them is written.

    python tools/atlas/build_facts.py --data DATA_DIR --out atlas/data/facts.json
"""

import argparse
import collections
import json
import pathlib
import re

from common import fnv1a, write_rows

HERE = pathlib.Path(__file__).parent

# Relations that the sources keep apart and atlas doesn't.
MERGED = {"P176": "P178", "P364": "P407", "P276": "P131"}
# LRE file -> relation; the other LRE files repeat CounterFact's facts or date quickly (CEOs).
LRE = {
    "company_hq": "P159", "landmark_in_country": "P17", "landmark_on_continent": "P30",
    "person_native_language": "P103", "person_occupation": "P106",
    "person_plays_instrument": "P1303", "person_plays_pro_sport": "P641", "product_by_company": "P178",
}
SKIPPED = {"P127", "P138", "P463"}  # owner, named after, member of: noisy or nearly one-valued
# Several objects can be right here, so the first found stays; elsewhere a conflict drops both.
MULTIVALUED = {"P190", "P37", "P1412", "P136", "P937", "P131"}
# Objects that don't fit their relation in the sources.
WRONG = {
    "P101": {"physician", "musician", "Finnish", "LGBT", "manga", "icon", "French", "English", "Tamil",
             "physicist", "mathematician", "philosopher", "diplomat", "novelist", "economist", "Hebrew",
             "Afghanistan", "terrorism", "asteroid", "groundwater", "Wikipedia", "car", "bird"},
    "P136": {"orchestra", "essay", "poker", "portrait", "singing", "piano", "guitar", "anthology"},
    "P178": {"Iran", "Square", "Douglas", "BBC"}, "P30": {"Americas"},
    "P37": {"Latin"}, "P108": {"Fortune"}, "P39": {"Shah", "minister"}, "P449": {"History"},
    "P140": {"Scientology"}, "P1303": {"singing"}, "P413": {"tackle"}, "P106": {"model", "detective"}, "P27": {"Babylon"},
}
# Events that the sources list among places, and codes among persons.
NO_PLACE = re.compile(r"\b(War|Games|Olympics|Championships?|Cup|Festival|Open|Classic|Campaign|Airlines?|FC|\d{4})\b")
MAX_PER_RELATION = 135
MAX_PER_OBJECT = 34
COMMON = 12  # an object this frequent can have ten neighbours; such facts come first
# Relations with many one-off objects: an object must come up this often to be taken.
MIN_PER_OBJECT = collections.defaultdict(lambda: 2, {"P36": 1, "P38": 1, "P190": 1, "P37": 2})


def clean(text):
    """Plain text with single spaces, or None where the string is no usable name."""
    text = re.sub(r"\s+", " ", text.replace("\u00a0", " ")).strip()
    if not 2 <= len(text) <= 36 or not (text[0].isupper() or text[0].isdigit()):
        return None
    if re.search(r"[^\w .,'&+!/:()-]", text) or re.search(r"[^\x20-\u024f]", text) or "." in text[-1]:
        return None
    return text


def read_counterfact(data):
    """Yields (subject, set of candidate relations, object)."""
    relation_of = collections.defaultdict(set)
    rows = []
    for record in json.loads((data / "counterfact/counterfact-500.json").read_text()):
        rewrite = record["requested_rewrite"]
        relation_of[rewrite["prompt"]].add(rewrite["relation_id"])
        rows.append((rewrite["subject"], {rewrite["relation_id"]}, rewrite["target_true"]["str"]))
    for part in ("train", "val", "edit-2000"):
        for record in json.loads((data / f"counterfact/counterfact-easyedit-{part}.json").read_text()):
            subject = record["subject"]
            relations = relation_of.get(record["prompt"].replace(subject, "{}"), set())
            rows.append((subject, relations, record["ground_truth"]))
    for subject, relations, object_ in rows:
        yield subject, {MERGED.get(r, r) for r in relations}, object_


def resolve(rows, countries):
    """Settles ambiguous prompts by the object: which of the relations is known to take it."""
    known = collections.defaultdict(collections.Counter)
    for _, relations, object_ in rows:
        if len(relations) == 1:
            known[next(iter(relations))][object_] += 1
    continents = set(known["P30"])
    for subject, relations, object_ in rows:
        if "P131" in relations and len(relations) > 1:
            guess = "P30" if object_ in continents else "P17" if object_ in countries else "P131"
        elif relations == {"P495", "P740"}:
            guess = "P495" if object_ in countries else "P740"
        elif len(relations) > 1:
            counts = {r: known[r][object_] for r in sorted(relations)}
            guess = max(counts, key=counts.get)
            if counts[guess] < 3:
                continue
        elif relations:
            guess = next(iter(relations))
        else:
            continue
        if guess in {"P131", "P740", "P159", "P19", "P20", "P937"} and object_ in countries | continents:
            continue
        yield subject, guess, object_


def read_lre(data):
    for name, relation in LRE.items():
        for sample in json.loads((data / f"lre/factual__{name}.json").read_text())["samples"]:
            yield sample["subject"], relation, sample["object"]


def read_geography():
    geography = json.loads((HERE / "geography.json").read_text())
    for country, values in geography["countries"].items():
        for relation, value in zip(("P36", "P38", "P37", "P30"), values):
            if value != country:
                yield country, relation, value
    for country, cities in geography["cities"].items():
        for city in cities:
            if city != country:
                yield city, "P17", country


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the development data folder")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("atlas/data/facts.json"))
    args = parser.parse_args()

    own = list(read_geography())
    countries = {s for s, r, _ in own if r == "P38"} | {"Czech Republic"}
    rows = list(read_counterfact(args.data))
    countries |= {o for _, rs, o in rows if rs in ({"P17"}, {"P27"}) and len(o) > 3}
    own_keys = {(s, r) for s, r, _ in own}
    table, dropped = {}, set()
    for subject, relation, object_ in list(resolve(rows, countries)) + list(read_lre(args.data)):
        subject, object_ = clean(subject), re.sub(r"\s+", " ", object_).strip()
        if subject is None or relation in SKIPPED or (subject, relation) in own_keys:
            continue
        if object_ in WRONG.get(relation, ()) or object_.lower() in subject.lower() or subject in object_:
            continue  # an object that can be read off the subject's name is no knowledge
        if relation in {"P17", "P131", "P30", "P37"} and NO_PLACE.search(subject):
            continue
        if relation in {"P101", "P106", "P19", "P20"} and subject.isupper():
            continue
        key = (subject, relation)
        if table.setdefault(key, object_) != object_ and relation not in MULTIVALUED:
            dropped.add(key)
    for key in dropped:
        del table[key]

    relations_of = collections.Counter(s for s, _ in table) + collections.Counter(s for s, _, _ in own)
    objects = {o for o in table.values()}
    by_relation = collections.defaultdict(list)
    for (subject, relation), object_ in table.items():
        by_relation[relation].append((subject, object_))
    facts = [(s, r, o) for s, r, o in own]
    for relation, pairs in sorted(by_relation.items()):
        count = collections.Counter(o for _, o in pairs)
        # Subjects with several facts, or that are objects elsewhere, come first; a hash breaks ties.
        pairs.sort(key=lambda p: (
            -(relations_of[p[0]] > 1) - 2 * (p[0] in objects) - 2 * (count[p[1]] >= COMMON),
            fnv1a(f"{relation}\t{p[0]}"),
        ))
        taken = collections.Counter(o for _, r, o in own if r == relation)
        kept = 0
        for subject, object_ in pairs:
            if kept == MAX_PER_RELATION or taken[object_] >= MAX_PER_OBJECT:
                continue
            if count[object_] >= MIN_PER_OBJECT[relation]:
                facts.append((subject, relation, object_))
                taken[object_] += 1
                kept += 1
    facts.sort(key=lambda f: (int(f[1][1:]), f[2], f[0]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(args.out, [list(f) for f in facts])
    counts = collections.Counter(r for _, r, _ in facts)
    print(len(facts), "facts,", len({s for s, _, _ in facts}), "subjects,", len(counts), "relations")
    print(dict(counts))


if __name__ == "__main__":
    main()
