"""GFLOP/s of PyTorch's f32 matrix product, x [rows, inner] by w [outer, inner]^T, at given shapes.

    python bench/peers/matmul_torch.py --shapes 32x576x1536 512x1024x4096 [--threads 2] [--seconds 1]

Shapes are rows x inner x outer. Output: JSON, the median of the repeats that fit in the time.
"""

import argparse
import json
import os
import sys
from statistics import median
from time import perf_counter

import threads  # noqa: F401, before torch
import torch


def measure(rows, inner, outer, seconds):
    """Median seconds of one product, after a warm-up of a tenth of the time."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inner, generator=generator)
    w = torch.randn(outer, inner, generator=generator)
    for budget in (seconds / 10, seconds):
        taken, end = [], perf_counter() + budget
        while len(taken) < 5 or perf_counter() < end:
            start = perf_counter()
            torch.nn.functional.linear(x, w)
            taken.append(perf_counter() - start)
    return median(taken), len(taken)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["1x576x1536", "32x576x1536", "256x1536x576",
                                                        "512x1024x1024", "32x576x49152"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = []
    for shape in args.shapes:
        rows, inner, outer = map(int, shape.split("x"))
        taken, repeats = measure(rows, inner, outer, args.seconds)
        results.append({"rows": rows, "inner": inner, "outer": outer, "milliseconds": taken * 1e3,
                        "gflops": 2 * rows * inner * outer / taken / 1e9, "repeats": repeats})
    json.dump({"torch": torch.__version__, "threads": args.threads, "load": os.getloadavg(),
               "results": results}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
