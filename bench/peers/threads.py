"""Import this before torch: OpenMP threads that wait without spinning.

Where other work shares the cores, threads that spin (the default) burn most of their time: one edit
on a busy two-core machine took 175 s of CPU instead of 47 s, which would flatter us.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
