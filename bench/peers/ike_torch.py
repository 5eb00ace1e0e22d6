"""Scores of continuations behind a long front in PyTorch: the peer of our IKE bench.

    python bench/peers/ike_torch.py --gguf FILE [--threads 2]

The first line of output says which PyTorch it is; then a line of JSON for a line of JSON:
{"task": "prefix"|"full", "front": ids, "tails": [ids], "targets": [ids]} -> seconds, CPU seconds, and the mean
log-probability of each target. `prefix`: the front once, then all tails as one padded batch over its keys and
values. `full`: one forward a text, as `icl_lm_eval` of the authors' icl.py does it.
"""

import argparse
import json
import sys
from time import perf_counter, process_time

import threads  # noqa: F401, before torch
import torch
from smollm2 import load


def shared(model, front, tails, targets):
    """One forward of the front, one of all tails with their targets but the last token."""
    fed = [tail + target[:-1] for tail, target in zip(tails, targets)]
    longest = max(map(len, fed))
    cache = model.model(input_ids=torch.tensor([front]), use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(fed))
    ids = torch.tensor([f + [0] * (longest - len(f)) for f in fed])
    mask = torch.cat([torch.ones(len(fed), len(front), dtype=torch.long),
                      torch.tensor([[1] * len(f) + [0] * (longest - len(f)) for f in fed])], 1)
    h = model.model(input_ids=ids, attention_mask=mask, past_key_values=cache).last_hidden_state
    at = [(i, len(tail) - 1 + t) for i, (tail, target) in enumerate(zip(tails, targets))
          for t in range(len(target))]
    rows, places = zip(*at)
    logits = model.lm_head(h[list(rows), list(places)])
    wanted = torch.tensor([t for target in targets for t in target])
    log_probs = logits.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
    return [part.mean().item() for part in log_probs.split([len(target) for target in targets])]


def whole(model, front, tails, targets):
    """One forward of everything for every text, logits everywhere."""
    scores = []
    for tail, target in zip(tails, targets):
        ids = torch.tensor([front + tail + target])
        labels = torch.full_like(ids, -100)
        labels[0, -len(target):] = torch.tensor(target)
        scores.append(-model(input_ids=ids, labels=labels).loss.item())
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, _ = load(args.gguf)
    print(json.dumps(dict(torch=torch.__version__)), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        run = dict(prefix=shared, full=whole)[task["task"]]
        start, cpu = perf_counter(), process_time()
        with torch.inference_mode():
            scores = run(model, task["front"], task["tails"], task["targets"])
        print(json.dumps(dict(seconds=perf_counter() - start, cpu_seconds=process_time() - cpu, scores=scores)),
              flush=True)


if __name__ == "__main__":
    main()
