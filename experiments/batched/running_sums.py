"""Running sums whose order of additions is fixed: torch documents its cumsum of floats on CUDA as nondeterministic.

Shape letters: N entries, B entries of a block, C blocks.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

BLOCK = 128


def running_sums(value_XN: Tensor, *, from_end: bool = False) -> Tensor:
    """Return the sums of the first 1, 2, ..., N entries [..., N], or of those from each entry to the last.

    Within a block they are one product with a triangular matrix; the totals of blocks are run up in the same way. No
    difference of sums is taken, so that a sum of non-negative entries is as exact as its largest.
    """
    entries = value_XN.shape[-1]
    block = min(entries, BLOCK)
    ones_BB = value_XN.new_ones(block, block)
    mask_BB = ones_BB.tril() if from_end else ones_BB.triu()
    if entries == block:
        return value_XN @ mask_BB
    if missing := -entries % block:
        value_XN = pad(value_XN, (0, missing))
    sum_XCB = value_XN.unflatten(-1, (-1, block)) @ mask_BB
    if from_end:
        others_XC = pad(running_sums(sum_XCB[..., 0], from_end=True)[..., 1:], (0, 1))
    else:
        others_XC = pad(running_sums(sum_XCB[..., -1])[..., :-1], (1, 0))
    return sum_XCB.add_(others_XC[..., None]).flatten(-2)[..., :entries].contiguous()
