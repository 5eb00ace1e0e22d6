"""Makes tests/fixtures/io/smollm2-tensors.json and smollm2-tokens.json from the SmolLM2 GGUF file, through
transformers: its dequantised state dict (names, layout) and its tokenizer. Run from the repository root.

    python tools/io/make_smollm2.py FILE.gguf

The tokenizer that transformers builds from a GGUF file leaves out SmolLM2's first pre-tokenizing step
(every digit by itself), which the model's own tokenizer.json and llama.cpp's "smollm" both have, so it is
put back here; nothing else is changed.
"""
import hashlib
import json
import os
import sys

import torch
from tokenizers import pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer

path = sys.argv[1]
folder, name = os.path.split(path)
OUT = "tests/fixtures/io"

model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
tensors = {}
for key, value in model.state_dict().items():
    if key == "lm_head.weight":
        continue  # tied
    array = value.detach().contiguous().numpy()
    flat = array.reshape(-1)
    at = [0, 1, len(flat) // 3, len(flat) // 2, len(flat) - 1]
    tensors[key] = {
        "shape": list(array.shape),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        "samples": [[i, float(flat[i])] for i in at],
    }
KEYS = """model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
num_key_value_heads head_dim hidden_act max_position_embeddings rms_norm_eps tie_word_embeddings
attention_bias mlp_bias bos_token_id eos_token_id rope_parameters""".split()
config = {key: getattr(model.config, key) for key in KEYS}
with open(f"{OUT}/smollm2-tensors.json", "w") as file:
    json.dump({"made_by": "tools/io/make_smollm2.py", "config": config, "tensors": tensors}, file, indent=0)

tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
backend = tokenizer.backend_tokenizer
backend.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
# The post-processor would trim the leading space off every offset.
backend.post_processor = processors.ByteLevel(trim_offsets=False)
sys.path.insert(0, os.path.dirname(__file__))
from strings import STRINGS, random_texts  # noqa: E402

cases = []
for text in STRINGS + random_texts(100):
    encoding = backend.encode(text, add_special_tokens=False)
    # Offsets in UTF-16 units, as JavaScript counts.
    units = [0]
    for char in text:
        units.append(units[-1] + (2 if ord(char) > 0xFFFF else 1))
    spans = [[units[a], units[b]] for a, b in encoding.offsets]
    decoded = tokenizer.decode(encoding.ids)
    # This vocabulary lacks some control bytes. Where one is dropped, Rust's later offsets are off.
    case = {"text": text, "ids": encoding.ids, "decoded": decoded}
    cases.append(case | {"spans": spans} if decoded == text else case)
with open(f"{OUT}/smollm2-tokens.json", "w") as file:
    json.dump({"made_by": "tools/io/make_smollm2.py", "cases": cases}, file, ensure_ascii=True, indent=0)
print(len(tensors), "tensors", len(cases), "texts")
