"""Lets numpy multiply matrices in one thread, unless the user has chosen; imported before numpy, which reads it once.

The bootstrap multiplies thousands of small matrices, and OpenBLAS shares each among the cores: the threads spin while
they wait for each other, on a busy machine for ten times as long as the product takes.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
