"""Reference numbers of SmolLM2 from transformers, for our parity test on the real model.

Per prompt: ids (no special tokens), per position the log-probability of the token that follows,
the 20 largest logits at the last position, their log-sum-exp, and 16 greedy tokens with the
smallest lead of a winner. The weights are the GGUF's, dequantised to f32 by transformers.

    python bench/peers/smollm2_reference.py --gguf FILE [--out tests/fixtures/models/smollm2-reference.json]
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
import transformers

from smollm2 import encode, load

PROMPTS = [
    "The capital of France is",
    "The mother tongue of Danielle Darrieux is",
    "<|im_start|>user\nWhat is the largest planet?<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n    ",
    "In 1969, Neil Armstrong became the first person to walk on the",
]
TOP, NEW_TOKENS = 20, 16


def rounded(values):
    return [round(float(v), 5) for v in values]


def reference(model, tokenizer, prompt):
    """The record of one prompt."""
    ids = encode(tokenizer, prompt)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    log_probs = logits.log_softmax(-1)
    top = logits[-1].topk(TOP)
    new, margin = list(ids), float("inf")
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            best = model(input_ids=torch.tensor([new]), use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        new.append(int(best.indices[0]))
    return {
        "prompt": prompt, "ids": ids,
        "next_log_probs": rounded(log_probs[range(len(ids) - 1), ids[1:]]),
        "top_ids": top.indices.tolist(), "top_logits": rounded(top.values),
        "log_sum_exp": rounded([logits[-1].logsumexp(-1)])[0],
        "greedy": new[len(ids):], "greedy_text": tokenizer.decode(new[len(ids):]),
        "greedy_margin": round(margin, 5),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--out", type=Path,
                        default=Path("tests/fixtures/models/smollm2-reference.json"))
    args = parser.parse_args()
    model, tokenizer = load(args.gguf, attention="eager")
    file = Path(args.gguf)
    result = {
        "source": "bench/peers/smollm2_reference.py", "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "transformers": transformers.__version__, "torch": torch.__version__,
        "prompts": [reference(model, tokenizer, prompt) for prompt in PROMPTS],
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for r in result["prompts"]:
        print(json.dumps(r["prompt"]), "→", json.dumps(r["greedy_text"]), r["greedy_margin"])


if __name__ == "__main__":
    main()
