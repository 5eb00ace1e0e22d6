"""One ROME edit in PyTorch, spending what the authors' code spends: the peer of our ROME bench.

As in kmeng01/rome: one padded batch of all contexts and the KL prompt, a full forward of all layers
and positions each step, log_softmax over all positions, the delta added in place by a hook on the
MLP, separate forwards for the keys and for the value, C inverted in f32. Layers up to the edited
one are outside the graph because every weight is frozen, there as here.

    python bench/peers/rome_torch.py --gguf FILE --case case.json --threads 2 [--repeat 3]

case.json: {"prompt": "… {} …", "subject", "target_new": text or {"str"}, "layer", "steps",
"contexts": [[ids of a prefix], …] (sampled when absent: none, 10 of 5 and 10 of 10 tokens),
"hparams": {"lr", "clamp", "weight_decay", "kl"}, "early_stop": bool}. A CounterFact record's
`requested_rewrite` fits. Everything at the level of ids: prefix + " prompt" + target[:-1].

Output: JSON with the median over repeats of each phase in seconds, totals with and without the
inverse of C, losses of each step, the norm of delta, and the ids, so that another engine can do
the same work. C is read from --statistics (safetensors, tensor "C") or made up; its values change
the direction of the update, not the cost.
"""

import argparse
import json
import os
import sys
from contextlib import contextmanager
from statistics import median
from time import perf_counter, process_time

import threads  # noqa: F401, before torch
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file

from smollm2 import encode, load

HPARAMS = dict(lr=0.5, clamp=4.0, weight_decay=0.5, kl=0.0625)
PREFIX_LENGTHS = [(5, 10), (10, 10)]
SEED = 7


def sample_prefixes(model, tokenizer):
    """Prefixes as ROME samples them (top 5, after the begin token), each closed by a full stop."""
    generator = torch.Generator().manual_seed(SEED)
    stop = encode(tokenizer, ".")
    prefixes = [[]]
    for length, count in PREFIX_LENGTHS:
        ids = torch.full((count, 1), model.config.bos_token_id)
        while ids.shape[1] < length:
            with torch.no_grad():
                top = model(input_ids=ids).logits[:, -1].softmax(-1).topk(5)
            pick = torch.multinomial(top.values, 1, generator=generator)
            ids = torch.cat([ids, top.indices.gather(1, pick)], 1)
        prefixes += [row[1:].tolist() + stop for row in ids]
    return prefixes


def sequences_of(case, tokenizer):
    """(ids of each context without target, subject-last index of each, target ids, KL ids, KL index)."""
    before, after = case["prompt"].split("{}")

    def pieces(lead):
        """The prompt up to the subject's end, and the rest; a space leads unless it opens the text."""
        head = encode(tokenizer, f"{lead}{before}{case['subject']}")
        return head, encode(tokenizer, after)

    contexts, lookups = [], []
    for prefix in case["contexts"]:
        head, tail = pieces(" " if prefix else "")
        contexts.append(prefix + head + tail)
        lookups.append(len(prefix) + len(head) - 1)
    target = case["target_new"]
    target = target["str"] if isinstance(target, dict) else target
    head = encode(tokenizer, case["subject"])
    return (contexts, lookups, encode(tokenizer, f" {target.strip()}"),
            head + encode(tokenizer, " is a"), len(head) - 1)


def padded(sequences, pad):
    """Right-padded ids and attention mask."""
    width = max(map(len, sequences))
    ids = torch.tensor([s + [pad] * (width - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences])
    return dict(input_ids=ids, attention_mask=mask)


class Clock:
    """Wall seconds by phase; nested names are counted in both."""

    def __init__(self):
        self.seconds = {}

    @contextmanager
    def phase(self, name):
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


def capture(model, module, batch, rows):
    """Input and output of a module at one position a sequence, by a full forward."""
    seen = {}
    handle = module.register_forward_hook(lambda m, args, out: seen.update(i=args[0], o=out))
    try:
        with torch.no_grad():
            model(**batch)
    finally:
        handle.remove()
    at = torch.arange(len(rows)), torch.tensor(rows)
    return seen["i"][at], seen["o"][at]


def edit(model, pad, case, sequences, C, clock):
    """One ROME edit, not written to the model. Returns (left, right, delta, losses, updated weight)."""
    contexts, lookups, target, kl_ids, kl_at = sequences
    hp = HPARAMS | case.get("hparams", {})
    block = model.model.layers[case["layer"]].mlp

    with clock.phase("keys"):
        keys, _ = capture(model, block.down_proj, padded(contexts, pad), lookups)
        key = keys.mean(0)
    with clock.phase("inverse"):
        inverse = torch.inverse(C)
    with clock.phase("left"):
        left = inverse @ key
        left = left / left.norm()

    with clock.phase("value"):
        batch = padded([c + target[:-1] for c in contexts] + [kl_ids], pad)
        wanted = torch.full((len(contexts), batch["input_ids"].shape[1]), -100)
        for i, c in enumerate(contexts):
            end = len(c) + len(target) - 1
            wanted[i, end - len(target):end] = torch.tensor(target)
        mask = (wanted != -100).float()
        gathered = torch.where(wanted != -100, wanted, 0).unsqueeze(2)
        positions = lookups + [kl_at]
        delta = torch.zeros(model.config.hidden_size, requires_grad=True)
        initial = kl_initial = None

        def add_delta(module, args, out):
            nonlocal initial
            if initial is None:
                initial = out[0, positions[0]].detach().clone()
            for i, at in enumerate(positions):
                out[i, at, :] += delta
            return out

        optimiser = torch.optim.Adam([delta], lr=hp["lr"])
        losses = []
        for step in range(case["steps"]):
            optimiser.zero_grad()
            with clock.phase("value.forward"):
                hook = block.register_forward_hook(add_delta)
                logits = model(**batch).logits
                hook.remove()
            with clock.phase("value.loss"):
                kl_log_probs = F.log_softmax(logits[-1:, kl_at], dim=1)
                if kl_initial is None:
                    kl_initial = kl_log_probs.detach().clone()
                log_probs = torch.log_softmax(logits, dim=2)
                picked = torch.gather(log_probs[:-1], 2, gathered).squeeze(2)
                nll = (-(picked * mask).sum(1) / len(target)).mean()
                kl = hp["kl"] * F.kl_div(kl_initial, kl_log_probs, log_target=True,
                                         reduction="batchmean")
                decay = hp["weight_decay"] * (delta.norm() / initial.norm() ** 2)
                loss = nll + kl + decay
                losses.append([float(x.detach()) for x in (loss, nll, kl, decay)])
            if case.get("early_stop", True) and losses[-1][0] < 5e-2:
                break
            if step == case["steps"] - 1:
                break
            with clock.phase("value.backward"):
                loss.backward()
            with clock.phase("value.update"):
                optimiser.step()
                largest = hp["clamp"] * initial.norm()
                if delta.norm() > largest:
                    with torch.no_grad():
                        delta[...] = delta * largest / delta.norm()

    with clock.phase("bare"):
        key_bare, value_bare = capture(model, block.down_proj, padded(contexts[:1], pad), lookups[:1])
    with clock.phase("update"):
        right = (initial + delta.detach() - value_bare[0]) / torch.dot(key_bare[0], left)
        weight = block.down_proj.weight + right.unsqueeze(1) @ left.unsqueeze(0)
    return left, right, delta.detach(), losses, weight


def made_up_statistics(size):
    """A well-conditioned symmetric positive definite C."""
    generator = torch.Generator().manual_seed(SEED)
    keys = torch.randn(4 * size, size, generator=generator)
    return keys.T @ keys / len(keys)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--case", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--statistics", help="safetensors file with the tensor C [inner, inner]")
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    with open(args.case) as file:
        case = json.load(file)
    case = case.get("requested_rewrite", {}) | case
    model, tokenizer = load(args.gguf, args.attention)
    case.setdefault("contexts", None)
    case["contexts"] = case["contexts"] or sample_prefixes(model, tokenizer)
    sequences = sequences_of(case, tokenizer)
    C = load_file(args.statistics)["C"] if args.statistics else \
        made_up_statistics(model.config.intermediate_size)

    runs, cpu = [], []
    for n in range(args.repeat):
        clock, start, used = Clock(), perf_counter(), process_time()
        left, right, delta, losses, _ = edit(model, tokenizer.pad_token_id, case, sequences, C, clock)
        clock.seconds["total"] = perf_counter() - start
        clock.seconds["total.without_inverse"] = clock.seconds["total"] - clock.seconds["inverse"]
        cpu.append(process_time() - used)
        runs.append(clock.seconds)
        print(f"repeat {n + 1}: {clock.seconds['total']:.2f} s, loss {losses[-1][0]:.4f}, "
              f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)

    contexts, lookups, target, kl_ids, kl_at = sequences
    json.dump({
        "seconds": {name: round(median(r[name] for r in runs), 5) for name in runs[0]},
        "total_each": [round(r["total"], 4) for r in runs],
        "cpu_seconds_each": [round(c, 4) for c in cpu],
        "threads": args.threads, "load": os.getloadavg(),
        "torch": torch.__version__, "transformers": transformers.__version__,
        "attention": args.attention,
        "steps": len(losses), "losses": losses,
        "delta_norm": float(delta.norm()), "update_norm": float(left.norm() * right.norm()),
        "ids": {"contexts": contexts, "subject_last": lookups, "target": target,
                "kl": {"ids": kl_ids, "subject_last": kl_at}},
        "case": case,
    }, sys.stdout)
    print()


if __name__ == "__main__":
    main()
