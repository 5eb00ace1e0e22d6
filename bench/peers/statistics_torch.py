"""Second moments of keys in PyTorch, for bench/peers/statistics.ts: answers one line of JSON a line of JSON.

Two ways: "authors" is what the released code does (rome/layer_stats.py): a pass of its own for every layer,
stopped behind that layer's down projection, documents sorted by length and padded into batches of at most
three contexts. "one-pass" is the best that the same batches allow: all layers in one pass, stopped behind the
highest. Sums are f32, as the released settings say.

    python bench/peers/statistics_torch.py --gguf FILE --threads 2
"""

import threads  # noqa: F401  (before torch)

import argparse
import json
import sys
import time

import torch

import smollm2


class Stop(Exception):
    pass


def batches(documents, limit):
    """Padded ids and mask, longest first, at most `limit` places each."""
    batch = []
    for ids in sorted(documents, key=len, reverse=True):
        if batch and len(batch[0]) * (len(batch) + 1) > limit:
            yield pad(batch)
            batch = []
        batch.append(ids)
    if batch:
        yield pad(batch)


def pad(batch):
    width = len(batch[0])
    ids = torch.tensor([d + [0] * (width - len(d)) for d in batch])
    mask = torch.tensor([[1] * len(d) + [0] * (width - len(d)) for d in batch])
    return ids, mask


class Sums:
    """S += K^T K of the wanted layers; the highest stops the pass."""

    def __init__(self, model, layers):
        width = model.config.intermediate_size
        self.sums = {layer: torch.zeros(width, width) for layer in layers}
        self.mask = None
        self.hooks = [
            model.model.layers[layer].mlp.down_proj.register_forward_hook(self.hook(layer, layer == max(layers)))
            for layer in layers]

    def hook(self, layer, last):
        def add(module, inputs, output):
            keys = inputs[0].reshape(-1, inputs[0].shape[-1])[self.mask.reshape(-1) == 1]
            self.sums[layer] += keys.t().mm(keys)
            if last:
                raise Stop
        return add

    def remove(self):
        for hook in self.hooks:
            hook.remove()


def collect(model, documents, groups, limit):
    """The sums of the layers of all groups, a pass a group."""
    made = {}
    for layers in groups:
        sums = Sums(model, layers)
        with torch.no_grad():
            for ids, mask in batches(documents, limit):
                sums.mask = mask
                try:
                    model(input_ids=ids, attention_mask=mask, use_cache=False)
                except Stop:
                    pass
        sums.remove()
        made |= sums.sums
    return made


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, _ = smollm2.load(args.gguf)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        layers = task["layers"]
        groups = [[layer] for layer in layers] if task["way"] == "authors" else [layers]
        start, cpu = time.perf_counter(), time.process_time()
        sums = collect(model, task["documents"], groups, task["limit"])
        seconds, busy = time.perf_counter() - start, time.process_time() - cpu
        diagonals = {layer: sums[layer].diagonal().tolist() for layer in layers}
        rows = {layer: sums[layer][0].tolist() for layer in layers}
        print(json.dumps(dict(seconds=seconds, cpu_seconds=busy, diagonals=diagonals, rows=rows)), flush=True)


if __name__ == "__main__":
    main()
