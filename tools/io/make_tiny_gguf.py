"""Makes tests/fixtures/io/tiny-*.gguf and tiny-gguf.json: small random models written by gguf-py the way
llama.cpp's converter writes them (q and k rows interleaved for "llama", GPT-2's Conv1D transposed), in every
type that emend reads, with byte-level and SentencePiece vocabularies. What must come out again is taken from
transformers loading the same files. Run from the repository root; the argument is a tokenizer.json with a
SentencePiece vocabulary (stories260k's).

    python tools/io/make_tiny_gguf.py TOKENIZER.json
"""
import hashlib
import json
import os
import sys

import gguf
import numpy as np
import torch
from gguf.quants import quantize
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config

sys.path.insert(0, os.path.dirname(__file__))
from strings import STRINGS, random_texts  # noqa: E402

OUT = "tests/fixtures/io"
TYPES = gguf.GGMLQuantizationType
rng = np.random.default_rng(3)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def train_bpe(pattern, nfc, ignore_merges, specials):
    """A byte-level BPE tokenizer with 400 tokens, as the model's own tokenizer.json would describe it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(STRINGS + random_texts(300, seed=9), trainer)
    return tokenizer


def write_bpe(writer, tokenizer, pre, bos, eos, add_bos):
    model = json.loads(tokenizer.to_str())["model"]
    specials = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in specials else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id(bos))
    writer.add_eos_token_id(tokenizer.token_to_id(eos))
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)


def add(writer, name, kind, *shape, array=None):
    """Adds a random tensor quantised to `kind`."""
    if array is None:
        array = (rng.standard_normal(shape) * 0.1).astype(np.float32)
    writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)


def interleave(weights, heads):
    """llama.cpp's LlamaModel.permute."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def llama_like(path, arch, vocab, write_tokenizer, heads=4, kv=2, head_dim=16, tied=False, rope_factor=None):
    width, inner, layers = heads * head_dim, 96, 2
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0 if rope_factor else 10000.0)
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(vocab)
    write_tokenizer(writer)
    add(writer, "token_embd.weight", TYPES.Q8_0, vocab, width)
    add(writer, "output_norm.weight", TYPES.F32, width)
    if not tied:
        add(writer, "output.weight", TYPES.F16, vocab, width)
    if rope_factor:
        writer.add_tensor("rope_freqs.weight", llama3_divisors(500000.0, head_dim, rope_factor))
    kinds = [TYPES.Q4_0, TYPES.Q4_1, TYPES.BF16, TYPES.F16, TYPES.Q8_0, TYPES.F32]
    for n in range(layers):
        def kind(i, n=n):
            return kinds[(i + n) % len(kinds)]
        mix = interleave if arch == "llama" else lambda weights, heads: weights
        q, k = [(rng.standard_normal((h * head_dim, width)) * 0.1).astype(np.float32) for h in (heads, kv)]
        add(writer, f"blk.{n}.attn_norm.weight", TYPES.F32, width)
        add(writer, f"blk.{n}.attn_q.weight", kind(0), array=mix(q, heads))
        add(writer, f"blk.{n}.attn_k.weight", kind(1), array=mix(k, kv))
        add(writer, f"blk.{n}.attn_v.weight", kind(2), kv * head_dim, width)
        if arch == "qwen2":
            for part, h in (("q", heads), ("k", kv), ("v", kv)):
                add(writer, f"blk.{n}.attn_{part}.bias", TYPES.F32, h * head_dim)
        add(writer, f"blk.{n}.attn_output.weight", kind(3), width, heads * head_dim)
        add(writer, f"blk.{n}.ffn_norm.weight", TYPES.F32, width)
        add(writer, f"blk.{n}.ffn_gate.weight", kind(4), inner, width)
        add(writer, f"blk.{n}.ffn_up.weight", kind(5), inner, width)
        add(writer, f"blk.{n}.ffn_down.weight", kind(6), width, inner)
    finish(writer)


def llama3_divisors(theta, dim, factor, low=1.0, high=4.0, length=8192):
    """As in llama.cpp's convert_hf_to_gguf.py, LlamaModel.generate_extra_tensors."""
    freqs = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    out = []
    for freq in freqs:
        wavelength = 2 * torch.pi / freq
        if wavelength < length / high:
            out.append(1)
        elif wavelength > length / low:
            out.append(factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, dtype=np.float32)


def gpt2(path, tokenizer):
    width, inner, layers, vocab = 32, 128, 2, 400
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    write_bpe(writer, tokenizer, "gpt-2", "<|endoftext|>", "<|endoftext|>", None)
    add(writer, "token_embd.weight", TYPES.F16, vocab, width)
    add(writer, "position_embd.weight", TYPES.F32, 64, width)
    add(writer, "output_norm.weight", TYPES.F32, width)
    add(writer, "output_norm.bias", TYPES.F32, width)
    for n in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            add(writer, f"blk.{n}.{norm}.weight", TYPES.F32, width)
            add(writer, f"blk.{n}.{norm}.bias", TYPES.F32, width)
        for name, kind, rows, columns in (
            ("attn_qkv", TYPES.Q8_0, 3 * width, width), ("attn_output", TYPES.F16, width, width),
            ("ffn_up", TYPES.F32, inner, width), ("ffn_down", TYPES.Q4_0, width, inner),
        ):
            add(writer, f"blk.{n}.{name}.weight", kind, rows, columns)
            add(writer, f"blk.{n}.{name}.bias", TYPES.F32, rows)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def reference(name, backend, config=None):
    """What transformers makes of the weights, and what `backend` makes of the texts."""
    given = {} if config is None else {"config": config}
    model = AutoModelForCausalLM.from_pretrained(OUT, gguf_file=name, dtype=torch.float32, **given)
    tied = model.config.tie_word_embeddings
    tensors = {
        key: {"shape": list(value.shape),
              "sha256": hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()}
        for key, value in model.state_dict().items() if not (tied and key == "lm_head.weight")
    }
    cases = []
    for text in STRINGS + random_texts(60, seed=4):
        cases.append({"text": text, "ids": backend.encode(text, add_special_tokens=False).ids})
    return {"tensors": tensors, "cases": cases}


out = {"made_by": "tools/io/make_tiny_gguf.py"}

with open(sys.argv[1]) as file:
    sentencepiece = json.load(file)
tokens = [token for token, _ in sorted(sentencepiece["model"]["vocab"].items(), key=lambda item: item[1])]


def write_sentencepiece(writer):
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0 if i < 259 else float(259 - i) for i in range(len(tokens))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


name = "tiny-llama-spm.gguf"
llama_like(f"{OUT}/{name}", "llama", len(tokens), write_sentencepiece, heads=3, kv=1, head_dim=32, tied=True)
out[name] = reference(name, Tokenizer.from_str(json.dumps(sentencepiece)))

bpe = train_bpe(LLAMA3, False, True, ["<|begin_of_text|>", "<|end_of_text|>"])
name = "tiny-llama-bpe.gguf"
llama_like(f"{OUT}/{name}", "llama", 400, rope_factor=32.0, write_tokenizer=lambda writer: write_bpe(
    writer, bpe, "llama-bpe", "<|begin_of_text|>", "<|end_of_text|>", None))
out[name] = reference(name, bpe)

bpe = train_bpe(QWEN2, True, False, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
name = "tiny-qwen2.gguf"
llama_like(f"{OUT}/{name}", "qwen2", 400, tied=True, write_tokenizer=lambda writer: write_bpe(
    writer, bpe, "qwen2", "<|endoftext|>", "<|im_end|>", False))
out[name] = reference(name, bpe)

bpe = train_bpe(GPT2, False, False, ["<|endoftext|>"])
name = "tiny-gpt2.gguf"
gpt2(f"{OUT}/{name}", bpe)
# transformers does not take GPT-2's vocabulary size from the file.
out[name] = reference(name, bpe, GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=64))

with open(f"{OUT}/tiny-gguf.json", "w") as file:
    json.dump(out, file)
