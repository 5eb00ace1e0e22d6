"""Makes tests/fixtures/io/peer.safetensors, peer.npz, peer-deflated.npz and peer.json: files written by the
safetensors library and by NumPy, with the values that must be read from them. Run from the repository root.

    python tools/io/make_files.py
"""
import json

import numpy as np
import torch
from safetensors.torch import save_file

OUT = "tests/fixtures/io"
torch.manual_seed(0)
tensors = {
    "f32": torch.randn(3, 5),
    "f16": torch.randn(7).half(),
    "bf16": torch.randn(2, 3, 2).bfloat16(),
    "i64": torch.tensor([-(2**62), 5]),
    "bool": torch.tensor([[True, False, True]]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
}
save_file(tensors, f"{OUT}/peer.safetensors", metadata={"format": "pt", "note": "naïve"})
rng = np.random.default_rng(0)
arrays = {
    "mom2.mom2": rng.standard_normal((6, 6)).astype("<f4"),
    "mom2.count": np.array(123456789012345, dtype="<i8"),
    "mean": rng.standard_normal(4),
    "ids": np.array([[1, -2, 3]], dtype="<i8"),
    "zeros": np.zeros((50, 40), dtype="<f4"),
    "constructor": np.array("rome.SecondMoment()"),
    "half": np.ones(2, dtype="<f2"),
    "fortran": np.asfortranarray(rng.standard_normal((2, 3))),
    "big": np.ones(2, dtype=">f4"),
}
np.savez(f"{OUT}/peer.npz", **arrays)
np.savez_compressed(f"{OUT}/peer-deflated.npz", **arrays)
read = ("mom2.mom2", "mom2.count", "mean", "ids", "zeros")


def raw(tensor):
    """A tensor's bytes in hex; a scalar must become a vector before it can be seen as bytes."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes().hex()


def as_text(array):
    return [str(value) for value in array.flatten().tolist()]


out = {
    "made_by": "tools/io/make_files.py",
    "safetensors": {key: {"shape": list(value.shape), "hex": raw(value)} for key, value in tensors.items()},
    "npz": {key: {"shape": list(arrays[key].shape), "values": as_text(arrays[key])} for key in read},
}
with open(f"{OUT}/peer.json", "w") as file:
    json.dump(out, file)
