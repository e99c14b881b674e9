"""The strided pattern of the Sparse Transformer (arXiv 1904.10509): a window, and every l-th key before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.ranges import MOST_KEYS, check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.interleave import interleave, only, recency

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Strided:
    """Take turns between the nearest l keys and those at a multiple of l, then the nearest that are left.

    Data-independent: uses neither queries nor keys; reads k keys, no search cost. The paper's own size is 2 l with
    l near sqrt(n), which is what `stride` null means. At other k the two halves grow together; what is beyond them
    is filled from the nearest.
    """

    name: str = "strided"
    stride: int | None = None
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.stride", self.stride, least=1, most=MOST_KEYS)  # null: sqrt(n)

    def prepare(self, cache: Cache) -> Answering:
        """Return the order of the two patterns in turn; there is nothing to prepare."""
        return lambda block: Subset.by_turn(lambda: self._turn(block, cache.num_keys))

    def _turn(self, block: Block, length: int) -> Tensor:
        stride = self.stride or math.isqrt(length)
        near_RN = recency(block.num_keys, block.position_R)
        window_RN = only(near_RN, near_RN < stride)
        strided_RN = only(near_RN, (near_RN % stride == 0) & (near_RN > 0))
        rest_RN = near_RN + block.num_keys
        return interleave([(1, window_RN), (1, strided_RN), (0.5, rest_RN)], block.visible_RN)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k."""
        return k
