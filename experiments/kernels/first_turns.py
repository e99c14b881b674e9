"""The keys of the k lowest turns of every row, without sorting rows: numpy parts them quicker than torch.

Shape letters: R rows, N keys.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def first_mask(turn_RN: Tensor, k_R: Tensor) -> Tensor:
    """Return what `experiments.reference.top_k.first_mask` does, for turns of any type on a CPU that are not NaN."""
    turn = turn_RN.numpy()
    last_R1 = np.array([np.partition(row, k - 1)[k - 1] for row, k in zip(turn, k_R.tolist(), strict=True)])[:, None]
    kept, tied = turn < last_R1, turn == last_R1
    left_R1 = k_R.numpy()[:, None] - kept.sum(1, keepdims=True)
    if bool((tied.sum(1, keepdims=True) > left_R1).any()):
        tied &= tied.cumsum(1) <= left_R1
    return torch.from_numpy(kept | tied)
