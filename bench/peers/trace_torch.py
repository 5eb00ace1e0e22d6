"""Causal tracing of one prompt in PyTorch, spending what the authors' code spends: the peer of our bench.

As in experiments/causal_trace.py of kmeng01/rome: for every cell one forward of a clean row and ten noisy
ones, all layers, all positions, logits everywhere; noise drawn anew from RandomState(1); states copied from
row 0 by hooks. A grid has tokens x layers cells and there are three: states, MLP windows, attention windows.

    python bench/peers/trace_torch.py --model GGUF|FOLDER --ids 1,2,3 --subject 4,9 --noise 0.1 --answer 7

The first line of output says how many layers there are; then a line of JSON for a line of JSON:
{"kind": "state"|"mlp"|"attn", "cells": [[token, layer], ...]} -> seconds and CPU seconds of them all, and scores.
"""

import argparse
import json
import sys
from time import perf_counter, process_time

import threads  # noqa: F401, before torch
import numpy
import torch
import transformers


def load(path):
    if path.endswith(".gguf"):
        from smollm2 import load as load_gguf
        return load_gguf(path)[0]
    return transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="sdpa").eval()


def modules_of(model):
    """(embedding, [(block, its MLP, its attention)])"""
    if hasattr(model, "transformer"):
        return model.transformer.wte, [(b, b.mlp, b.attn) for b in model.transformer.h]
    return model.model.embed_tokens, [(b, b.mlp, b.self_attn) for b in model.model.layers]


def score(model, inp, places, answer, subject, noise, embedding):
    """P(answer), the mean over noisy rows, with the outputs of (token, module) places restored."""
    draws = numpy.random.RandomState(1)
    first, end = subject

    def corrupt(_module, _args, out):
        shape = (out.shape[0] - 1, end - first, out.shape[2])
        out[1:, first:end] += noise * torch.from_numpy(draws.randn(*shape))
        return out

    def restore(token):
        def hook(_module, _args, out):
            h = out[0] if isinstance(out, tuple) else out
            h[1:, token] = h[0, token]
            return out
        return hook

    handles = [embedding.register_forward_hook(corrupt)]
    handles += [module.register_forward_hook(restore(token)) for token, module in places]
    with torch.no_grad():
        logits = model(**inp).logits
    for handle in handles:
        handle.remove()
    return torch.softmax(logits[1:, -1, :], dim=1).mean(dim=0)[answer].item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--subject", required=True)
    parser.add_argument("--answer", type=int, required=True)
    parser.add_argument("--noise", type=float, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load(args.model)
    embedding, blocks = modules_of(model)
    ids = [int(i) for i in args.ids.split(",")]
    subject = [int(i) for i in args.subject.split(",")]
    inp = dict(input_ids=torch.tensor([ids] * 11), attention_mask=torch.ones(11, len(ids), dtype=torch.long))
    layers = len(blocks)
    ask = lambda places: score(model, inp, places, args.answer, subject, args.noise, embedding)
    ask([])  # warms up
    print(json.dumps(dict(torch=torch.__version__, layers=layers)), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        part = ["state", "mlp", "attn"].index(task["kind"])
        window = lambda l: [l] if part == 0 else range(max(0, l - 5), min(layers, l + 5))
        start, cpu = perf_counter(), process_time()
        scores = [ask([(t, blocks[n][part]) for n in window(l)]) for t, l in task["cells"]]
        print(json.dumps(dict(seconds=perf_counter() - start, cpu_seconds=process_time() - cpu, scores=scores)),
              flush=True)


if __name__ == "__main__":
    main()
