"""Queries of SERAC in PyTorch: the peer of our SERAC bench.

    python bench/peers/serac_torch.py --gguf FILE --encoder MINILM_FOLDER [--threads 2]

The first line of output says which PyTorch it is; then a line of JSON for a line of JSON:
{"memories": [texts], "limit": cosine, "margin": above the third nearest} embeds the memory once -> {}; {"text",
"plain": ids, "memory": number, "whole": ids} -> seconds, CPU seconds, whether the nearest memory is within the limit
(and is number `memory`), and the likeliest token after `whole` if so, else after `plain`; with "again": true it
embeds the memory once more with the query, as `embedding_logsim_matrix` of the released code does.
"""

import argparse
import json
import sys
from time import perf_counter, process_time

import threads  # noqa: F401, before torch
import torch
import torch.nn.functional as F
import transformers
from smollm2 import load


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, _ = load(args.gguf)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.encoder)
    encoder = transformers.AutoModel.from_pretrained(args.encoder, dtype=torch.float32).eval()

    def embed(texts):
        batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        mask = batch.attention_mask[..., None].float()
        return F.normalize((encoder(**batch).last_hidden_state * mask).sum(1) / mask.sum(1), dim=1)

    print(json.dumps(dict(torch=torch.__version__)), flush=True)
    def embed_all(texts):
        return torch.cat([embed(texts[i:i + 64]) for i in range(0, len(texts), 64)])

    texts, memory, limit, margin = [], None, 0.0, 0.0
    with torch.inference_mode():
        for line in sys.stdin:
            task = json.loads(line)
            if "memories" in task:
                texts, limit, margin = task["memories"], task["limit"], task["margin"]
                memory = embed_all(texts)
                print("{}", flush=True)
                continue
            start, cpu = perf_counter(), process_time()
            if task.get("again"):
                memory = embed_all(texts)
            cosines, nearest = (memory @ embed([task["text"]])[0]).topk(3)
            hit = cosines[0].item() >= limit and (cosines[0] - cosines[2]).item() >= margin
            ids = task["whole"] if hit else task["plain"]
            token = model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1].argmax().item()
            print(json.dumps(dict(seconds=perf_counter() - start, cpu_seconds=process_time() - cpu, token=token,
                                  hit=hit and nearest[0].item() == task["memory"])), flush=True)


if __name__ == "__main__":
    main()
