"""Writes tests/fixtures/adapters/*: LoRA adapters as PEFT itself saves them, with transformers' logits.

    python tools/patches/make_adapters.py [NAME ...]

Each folder holds adapter_config.json and adapter_model.safetensors as `save_pretrained` wrote them, with
factors of seeded noise, and expected.safetensors: `logits` [sum of T, vocabulary] of the base with the adapter
loaded from that folder, with the base's name and the sequences as metadata.

Needs torch, transformers, safetensors and peft (see `versions` in the metadata).
"""

import argparse
import json
import pathlib
import shutil

import peft
import safetensors.torch
import torch
import transformers
from make_fixtures import FIXTURES, load, logits

OUT = FIXTURES / "adapters"

# Base, keys of LoraConfig, and what else is special.
ADAPTERS = {
    # GPT-2's Conv1D; one name for two modules of a block.
    "gpt2-plain": ("gpt2-tiny", dict(r=2, lora_alpha=6, target_modules=["c_attn", "c_proj"],
                                     fan_in_fan_out=True), {}),
    # Ranks and alphas that differ by pattern, and alpha over the root of r.
    "llama-patterns": ("llama-tiny", dict(
        r=2, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.1.mlp.down_proj": 3, "^model.layers.0.self_attn.q_proj": 1},
        alpha_pattern={"v_proj": 1, r".*\.1\.mlp\.down_proj": 7}), {}),
    # Trained without the head, so that names lack "model."; stored in bfloat16.
    "llama-headless": ("llama-tiny", dict(r=2, lora_alpha=4, target_modules=["up_proj", "o_proj"]),
                       dict(headless=True, dtype=torch.bfloat16)),
}


def make(name, base, keys, headless=False, dtype=torch.float32):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    path = FIXTURES / "models" / base
    model = transformers.AutoModel.from_pretrained(path) if headless else load(path)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**keys))
    generator = torch.Generator().manual_seed(20240607)
    with torch.no_grad():
        for key, value in adapted.named_parameters():
            if "lora_" in key:
                value.data = (0.2 * torch.randn(value.shape, generator=generator)).to(dtype)
    # The machine's path is nobody's business.
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)

    plain = load(path)
    vocabulary = plain.config.vocab_size
    sequences = [torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in (9, 4)]
    before = logits(plain, sequences, 1)
    # PEFT puts its layers into the model that it is given.
    peft.PeftModel.from_pretrained(plain.base_model if headless else plain, folder)
    after = logits(plain.eval(), sequences, 1)
    moved = ((after - before).norm() / before.norm()).item()
    print(f"{name}: moves the logits by {moved:.2e} relative")
    assert moved > 0.01
    safetensors.torch.save_file({"logits": after}, folder / "expected.safetensors", metadata={
        "source": "tools/patches/make_adapters.py",
        "versions": json.dumps({m.__name__: m.__version__ for m in (torch, transformers, peft)}),
        "base": base,
        "sequences": json.dumps(sequences),
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="which adapters; default all")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, (base, keys, special) in ADAPTERS.items():
        if not args.names or name in args.names:
            make(name, base, keys, **special)


if __name__ == "__main__":
    main()
