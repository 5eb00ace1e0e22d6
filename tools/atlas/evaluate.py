"""Measures atlas's recall: does greedy decoding give a fact's object, exactly, and then a full stop?

Every fact is asked in every phrasing: the trained ones and those withheld for its subject; bare, and
after a random sentence about something else. The f16 weights are cast to f32. A greedy continuation
equals the expected tokens where each of them is the most probable one given those before it, so one
forward pass a prompt decides.

    python tools/atlas/evaluate.py
"""

import argparse
import collections
import json
import pathlib
import random

import torch

from common import load, split


def recall_cases(facts, relations, limit=None, seed=0, preceding=False):
    """[(group, relation, prompt, object)]; group is 'trained' or 'withheld', plus '+' after a sentence."""
    rng = random.Random(seed)
    cases = []
    for subject, relation, object_ in facts:
        for group, templates in zip(("trained", "withheld"), split(subject, relation, relations)):
            for template, _ in templates:
                prompt = template.replace("{}", subject)
                if preceding:
                    other, other_relation, other_object = rng.choice(facts)
                    before = rng.choice(split(other, other_relation, relations)[0])[0].replace("{}", other)
                    cases.append((group + "+", relation, f"{before} {other_object}. {prompt}", object_))
                else:
                    cases.append((group, relation, prompt, object_))
    if limit and limit < len(cases):
        cases = rng.sample(cases, limit)
    return cases


@torch.no_grad()
def right(model, tokenizer, pairs, batch=128):
    """For each (prompt, object): whether greedy decoding continues with the object and a full stop."""
    encoded = []
    for index, (prompt, object_) in enumerate(pairs):
        ids, answer = tokenizer.encode(prompt).ids, tokenizer.encode(f" {object_}.").ids
        encoded.append((len(ids) + len(answer), index, ids, answer))
    encoded.sort(key=lambda e: e[:2])
    out = [False] * len(pairs)
    for i in range(0, len(encoded), batch):
        part = encoded[i : i + batch]
        width = part[-1][0]
        ids = torch.tensor([p + a + [0] * (width - n) for n, _, p, a in part])
        best = model(ids, use_cache=False).logits.argmax(-1)
        for row, (n, index, p, a) in enumerate(part):
            out[index] = best[row, len(p) - 1 : n - 1].tolist() == a
    return out


def score(model, tokenizer, cases, relations=False):
    """Share of right answers by group, or by (group, relation)."""
    hits = right(model, tokenizer, [(prompt, object_) for _, _, prompt, object_ in cases])
    counts = collections.defaultdict(lambda: [0, 0])
    for (group, relation, _, _), hit in zip(cases, hits):
        cell = counts[f"{group} {relation}" if relations else group]
        cell[0] += hit
        cell[1] += 1
    return {key: round(a / b, 4) for key, (a, b) in sorted(counts.items())}


def load_model(folder):
    """The saved model in f32 and its tokenizer."""
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model, Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("atlas/data"))
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("atlas/model"))
    parser.add_argument("--limit", type=int, help="ask only this many prompts of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--relations", action="store_true", help="also by relation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    facts, relations, _ = load(args.data)
    model, tokenizer = load_model(args.model)
    for preceding in (False, True):
        cases = recall_cases(facts, relations, args.limit, args.seed, preceding)
        print(len(cases), "prompts", json.dumps(score(model, tokenizer, cases)), flush=True)
        if args.relations:
            print(json.dumps(score(model, tokenizer, cases, True), indent=1))


if __name__ == "__main__":
    main()
