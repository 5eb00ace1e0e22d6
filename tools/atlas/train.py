"""Trains atlas from scratch: a tokenizer on our sentences, then a GPT-2 on packed windows of them.

Windows are filled with shuffled sentences from a sentence border on; most have no leading
<|endoftext|>, so a fact is also learned at position 0 without one. Short and long windows alternate:
the short ones put many more sentences first. The forward and backward passes run in bfloat16 over
f32 master weights. `--resume` goes on from the checkpoint in `--work`; the result is written as f16.

    python tools/atlas/train.py --work WORK_DIR --steps 5000
"""

import argparse
import json
import math
import pathlib
import random
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from common import load, sentences
from evaluate import recall_cases, score

EOT = "<|endoftext|>"
OTHER_WEIGHT = 0.12  # loss weight of tokens that are no object: names and wordings can't be foretold
SHAPES = ((16, 128), (64, 32))


def train_tokenizer(texts, vocab_size):
    """Byte-level BPE as GPT-2's (no prefix space), with one special token at id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOT], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer, rows):
    """Each sentence as [(ids, weights) at a text's start, the same after a blank]."""
    out = []
    for text, start in rows:
        forms = []
        for lead in ("", " "):
            encoding = tokenizer.encode(lead + text)
            border = start + len(lead) if start >= 0 else len(text) + 9
            weights = [1.0 if end > border else OTHER_WEIGHT for _, end in encoding.offsets]
            forms.append((encoding.ids, weights))
        out.append(forms)
    return out


class Packer:
    """Endless shuffled passes over the sentences, cut into windows that start at sentence borders."""

    def __init__(self, encoded, seed):
        self.encoded, self.random, self.queue = encoded, random.Random(seed), []

    def next_sentence(self):
        if not self.queue:
            self.queue = list(range(len(self.encoded)))
            self.random.shuffle(self.queue)
        return self.queue.pop()

    def window(self, length):
        ids, weights, blank = [], [], False
        if self.random.random() < 0.2:
            ids, weights = [0], [0.0]
        while len(ids) < length:
            index = self.next_sentence()
            more_ids, more_weights = self.encoded[index][blank]
            if ids and len(ids) + len(more_ids) > length and len(more_ids) <= length:
                self.queue.append(index)  # cut off here, so it comes again, first in the next window
            ids = ids + more_ids
            weights = weights + more_weights
            blank = self.random.random() > 0.05
            if not blank:
                ids, weights = ids + [0], weights + [OTHER_WEIGHT]
        return ids[:length], weights[:length]

    def batch(self, shape):
        windows = [self.window(shape[1]) for _ in range(shape[0])]
        return torch.tensor([w[0] for w in windows]), torch.tensor([w[1] for w in windows])


def save_model(folder, model, masters, config, tokenizer):
    """Writes model.safetensors (f16, head tied and so absent), config.json and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, _ in model.named_parameters()]
    save_file(
        {name: master.detach().half().contiguous() for name, master in zip(names, masters)},
        folder / "model.safetensors", metadata={"format": "pt"},
    )
    (folder / "model.safetensors").chmod(0o644)
    keep = ("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner",
            "activation_function", "layer_norm_epsilon", "initializer_range", "attn_pdrop", "embd_pdrop",
            "resid_pdrop", "scale_attn_weights", "bos_token_id", "eos_token_id")
    values = config.to_dict()
    written = {"architectures": ["GPT2LMHeadModel"]} | {k: values[k] for k in keep}
    written |= {"n_ctx": values["n_positions"], "tie_word_embeddings": True, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": values["n_positions"],
        "bos_token": EOT, "eos_token": EOT, "unk_token": EOT, "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("atlas/data"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("atlas/model"))
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=250, help="steps between checks and checkpoints")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    facts, relations, kinds = load(args.data)
    rows = sentences(facts, relations, kinds)
    tokenizer = train_tokenizer((lead + text for text, _ in rows for lead in ("", " ")), 4096)
    encoded = encode(tokenizer, rows)
    packer = Packer(encoded, args.seed)
    lengths = [len(forms[1][0]) for forms in encoded]
    print(f"{len(facts)} facts, {len(rows)} sentences, {sum(lengths)} tokens a pass, longest {max(lengths)}")

    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_positions=128, n_embd=256, n_layer=6, n_head=8, n_inner=1024,
        activation_function="gelu_new", attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        bos_token_id=0, eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    masters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    model = model.to(torch.bfloat16).train()
    decay = [m for m in masters if m.ndim > 1]
    rest = [m for m in masters if m.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.98), fused=True,
    )
    print(sum(m.numel() for m in masters), "parameters")

    def refresh():
        with torch.no_grad():
            for parameter, master in zip(model.parameters(), masters):
                parameter.copy_(master)

    def loss_of(ids, weights):
        logits = model(ids, use_cache=False).logits[:, :-1].float()
        losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
        weights = weights[:, 1:].reshape(-1)
        return (losses * weights).sum() / weights.sum(), (losses * (weights == 1.0)).sum().detach() / (weights == 1.0).sum()

    compiled = torch.compile(loss_of, dynamic=False)
    checkpoint = args.work / "checkpoint.pt"
    step = 0
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        step, packer.queue = state["step"], state["queue"]
        packer.random.setstate(state["random"])
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for master, saved in zip(masters, state["masters"]):
                master.copy_(saved)
        refresh()
    cases = recall_cases(facts, relations, limit=1200, seed=args.seed)
    began, tokens, mean = time.time(), 0, 0.0
    while step < args.steps:
        warm = min(1.0, (step + 1) / args.warmup)
        rate = args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / args.steps))))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, weights = packer.batch(SHAPES[step % len(SHAPES)])
        loss, object_loss = compiled(ids, weights)
        loss.backward()
        for master, parameter in zip(masters, model.parameters()):
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        refresh()
        step += 1
        tokens += ids.numel()
        mean = 0.98 * mean + 0.02 * object_loss.item() if mean else object_loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.3f} object {mean:.3f} tokens/s {tokens / (time.time() - began):.0f}",
                  flush=True)
            began, tokens = time.time(), 0
        if step % args.every == 0 or step == args.steps:
            args.work.mkdir(parents=True, exist_ok=True)
            torch.save({"step": step, "queue": packer.queue, "random": packer.random.getstate(),
                        "optimizer": optimizer.state_dict(), "masters": [m.detach() for m in masters]}, checkpoint)
            save_model(args.out, model, masters, config, tokenizer)
            print("recall", score(model, tokenizer, cases), flush=True)


if __name__ == "__main__":
    main()
