"""Makes tests/fixtures/io/quants.json: random blocks of each quantised type and the F32 values that
gguf-py decodes them to, plus blocks with extreme scales. Run from the repository root.

    python tools/io/make_quants.py
"""
import json

import gguf
import numpy as np
from gguf.quants import dequantize

TYPES = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}
BLOCKS = 40
rng = np.random.default_rng(1)
out = {"made_by": "tools/io/make_quants.py", "gguf": "gguf-py", "types": {}}
for name, size in TYPES.items():
    blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    scales = 2 if name == "Q4_1" else 1
    # Scales over the whole finite range of f16, subnormals and both zeros included.
    spread = rng.standard_normal((BLOCKS, scales)) * 10.0 ** rng.uniform(-8, 4, (BLOCKS, scales))
    half = spread.astype(np.float16)
    half[0], half[1], half[2] = 0, -0.0, np.float16(6e-8)
    half[3], half[4] = np.float16(65504), np.float16(-65504)
    blocks[:, : 2 * scales] = half.view(np.uint8)
    values = dequantize(blocks, gguf.GGMLQuantizationType[name]).reshape(-1).astype(np.float32)
    assert np.isfinite(values).all()
    out["types"][name] = {"blocks": blocks.tobytes().hex(), "bits": values.view(np.uint32).tolist()}
with open("tests/fixtures/io/quants.json", "w") as file:
    json.dump(out, file)
