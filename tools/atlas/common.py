"""What the atlas tools share: the data files, the withheld split and the corpus rule.

`atlas/README.md` states the rules in words and `atlas/corpus.ts` repeats them in TypeScript.
"""

import json
import pathlib


def fnv1a(text):
    """32-bit FNV-1a of the UTF-8 bytes."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


class Lcg:
    """Numerical Recipes' 32-bit linear congruential generator."""

    def __init__(self, seed):
        self.state = seed & 0xFFFFFFFF

    def below(self, n):
        """The next integer in [0, n)."""
        self.state = (1664525 * self.state + 1013904223) & 0xFFFFFFFF
        return self.state * n >> 32

    def shuffle(self, items):
        """Fisher-Yates in place, from the end."""
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]


def write_rows(path, rows):
    """A JSON array with one compact row a line, so that a diff stays readable."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    pathlib.Path(path).write_text(f"[\n{lines}\n]\n")


def load(folder):
    """(facts, relations, kinds) from the data folder."""
    folder = pathlib.Path(folder)
    return tuple(json.loads((folder / f"{name}.json").read_text()) for name in ("facts", "relations", "kinds"))


def split(subject, relation, relations):
    """Phrasings of one subject and relation as (trained, withheld) lists of (template, is_question).

    Two statements and one question are withheld, chosen by the hash of relation, tab and subject.
    """
    statements, questions = relations[relation]["statements"], relations[relation]["questions"]
    h = fnv1a(f"{relation}\t{subject}")
    n = len(statements)
    first = h % n
    second = (first + 1 + (h >> 8) % (n - 1)) % n
    question = (h >> 16) % len(questions)
    trained, withheld = [], []
    for i, template in enumerate(statements):
        (withheld if i in (first, second) else trained).append((template, False))
    for i, template in enumerate(questions):
        (withheld if i == question else trained).append((template, True))
    return trained, withheld


def sentences(facts, relations, kinds):
    """Every sentence of one pass as (text, start of the object in it or -1), in file order.

    First the facts in their trained phrasings; then, once each, what kind of thing a subject is (its
    first fact decides) and the sentences about every object; last the general sentences, five times.
    """
    rows, seen = [], {}
    for subject, relation, object_ in facts:
        for template, _ in split(subject, relation, relations)[0]:
            prompt = template.replace("{}", subject)
            rows.append((f"{prompt} {object_}.", len(prompt)))
    for subject, relation, _ in facts:
        seen.setdefault(subject, kinds["subjects"][relations[relation]["subjectKind"]])
    for subject, kind in seen.items():
        rows.append((f"{subject} is {kind}.", -1))
    done = set()
    for _, relation, object_ in facts:
        kind = relations[relation]["objectKind"]
        if (kind, object_) not in done:
            done.add((kind, object_))
            rows.extend((text.replace("{}", object_), -1) for text in kinds["objects"][kind])
    for _ in range(5):
        rows.extend((text, -1) for text in kinds["general"])
    return rows


def documents(facts, relations, kinds, seed=0, size=8):
    """Yields documents of `size` sentences joined by a blank, one shuffled pass over `sentences`."""
    texts = [text for text, _ in sentences(facts, relations, kinds)]
    Lcg(seed).shuffle(texts)
    for i in range(0, len(texts), size):
        yield " ".join(texts[i : i + size])
