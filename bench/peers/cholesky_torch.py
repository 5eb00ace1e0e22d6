"""Seconds of PyTorch's f64 Cholesky of an n x n matrix, of 100 solves with it, and of eigh: the peer of
bench/cholesky.ts, in f64 with the given threads.

    python bench/peers/cholesky_torch.py --n 3072 [--threads 2] [--repeat 3] [--eigh]

Output: JSON, medians. "wall" is what this machine took, "busy" the process's CPU time over the number of
threads, which other work on the machine disturbs less.
"""

import argparse
import json
from statistics import median
from time import perf_counter, process_time

import threads  # noqa: F401, before torch
import torch


def measure(work, repeat, cores):
    """Median wall and busy seconds after one warm-up."""
    work()
    wall, busy = [], []
    for _ in range(repeat):
        start, cpu = perf_counter(), process_time()
        work()
        wall.append(perf_counter() - start)
        busy.append((process_time() - cpu) / cores)
    return {"wall": median(wall), "busy": median(busy)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=3072)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--eigh", action="store_true")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    keys = torch.randn(2 * flags.n, flags.n, dtype=torch.float64)
    c = keys.T @ keys / keys.shape[0]
    b = torch.randn(flags.n, flags.columns, dtype=torch.float64)
    factor = torch.linalg.cholesky(c)
    out = {
        "torch": torch.__version__,
        "factor": measure(lambda: torch.linalg.cholesky(c), flags.repeat, flags.threads),
        "solves": measure(lambda: torch.cholesky_solve(b, factor), flags.repeat, flags.threads),
    }
    if flags.eigh:
        out["eigh"] = measure(lambda: torch.linalg.eigh(c), 1, flags.threads)
    print(json.dumps(out))


main()
