"""Loads SmolLM2 from a GGUF file as an f32 transformers model, and checks that it speaks."""

import sys
from pathlib import Path

import torch
import transformers


def load(gguf, attention="sdpa"):
    """(model, tokenizer) of a GGUF file: weights dequantised to f32, on the CPU."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    path = Path(gguf).resolve()
    source = dict(pretrained_model_name_or_path=str(path.parent), gguf_file=path.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, attn_implementation=attention).eval()
    for p in model.parameters():
        p.requires_grad = False
    said = tokenizer.decode(next_token(model, encode(tokenizer, "The capital of France is")))
    if said != " Paris":
        sys.exit(f'Expected " Paris" after "The capital of France is", the model says "{said}"')
    return model, tokenizer


def encode(tokenizer, text):
    """Ids of a text without any special token."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def next_token(model, ids):
    """The id that the model finds most likely next."""
    with torch.no_grad():
        return int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
