"""The fixed pattern of the Sparse Transformer (arXiv 1904.10509): a row's block, and the last keys of each block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import MOST_KEYS, check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.interleave import interleave, only, recency

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class SummaryColumns:
    """Take turns between the keys of the row's own block and the last `columns` keys of every block, then the nearest.

    Data-independent: uses neither queries nor keys; reads k keys, no search cost. The paper's blocks have l keys
    with l near sqrt(n) (`block` null) and it keeps c of 8 to 32 columns of each.
    """

    name: str = "summary_columns"
    block: int | None = None
    columns: int = 8
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.columns", self.columns, least=1, most=MOST_KEYS)
        check_range("selector.block", self.block, least=1, most=MOST_KEYS)  # null: sqrt(n)

    def prepare(self, cache: Cache) -> Answering:
        """Return the order of the two patterns in turn; there is nothing to prepare."""
        return lambda block: Subset.by_turn(lambda: self._turn(block, cache.num_keys))

    def _turn(self, block: Block, length: int) -> Tensor:
        size = self.block or math.isqrt(length)
        key_N = torch.arange(block.num_keys, device=block.query_RD.device)
        near_RN = recency(block.num_keys, block.position_R)
        own_RN = key_N // size == block.position_R[:, None] // size
        summary_RN = (key_N % size >= size - self.columns) & ~own_RN
        patterns = [(1.0, only(near_RN, own_RN)), (1.0, only(near_RN, summary_RN)), (0.5, near_RN + block.num_keys)]
        return interleave(patterns, block.visible_RN)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k."""
        return k
