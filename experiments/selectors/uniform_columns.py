"""Uniform columns, reweighted: the sampling part of HyperAttention (arXiv 2310.05869)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.interleave import own_first
from experiments.selectors.random import random_integers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class UniformColumns:
    """Keep the row's own key, then columns drawn for all rows of a head alike; each stands for (n - 1) / (k - 1) keys.

    Data-independent: uses neither queries nor keys; reads k keys, no search cost.
    """

    name: str = "uniform_columns"
    draw: int = 0
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.draw", self.draw, least=0)

    def prepare(self, cache: Cache) -> Answering:
        """Return the order of each head's columns; there is nothing to prepare."""
        return self._answer

    def _answer(self, block: Block) -> Subset:
        def order() -> Tensor:
            # the same position and query for all rows of a head, and so the same columns
            alike = replace(block, position_R=block.position_R * 0, query_RD=torch.zeros_like(block.query_RD))
            number_RN = random_integers(alike, self.draw)
            number_RN = number_RN.masked_fill(number_RN == torch.iinfo(torch.int64).max, 0)
            turn_RN = number_RN.masked_fill(~block.visible_RN, torch.iinfo(torch.int64).max)
            return own_first(turn_RN.argsort(dim=-1, stable=True), block.position_R)

        def weight(k_R: Tensor) -> Tensor:
            stands_for_R = (block.n_R - 1).double() / (k_R - 1).clamp(min=1)
            weight_RN = stands_for_R[:, None].expand(-1, block.num_keys).clone()
            return weight_RN.scatter_(1, block.own_R1, 1.0)

        return Subset(order, weight)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k."""
        return k
