"""How many threads kernels have: torch's, of which numba's pool must not make more.

Shape letters: R rows, N keys.
"""

from __future__ import annotations

import numba
import torch
from torch import Tensor


def use_threads(logits_RN: Tensor, serial: int = 0) -> int:
    """Let kernels work off a block with torch's threads, and return how many: one if it has fewer than `serial` logits.

    As numba's pool starts it sets the threads of OpenMP, torch's too, to every core: they are set back.
    """
    of_torch, most = torch.get_num_threads(), len(logits_RN) if logits_RN.numel() >= serial else 1
    numba.set_num_threads(threads := min(of_torch, numba.config.NUMBA_NUM_THREADS, most))
    torch.set_num_threads(of_torch)
    return threads
