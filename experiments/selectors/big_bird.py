"""BigBird (arXiv 2007.14062): the nearest keys, the first ones, and random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.interleave import check_share, interleave, ranks, recency
from experiments.selectors.random import random_integers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class BigBird:
    """Take turns between nearest, first and random keys, by their shares; 3 to 2 to 3 is the paper's.

    Data-independent: uses neither queries nor keys; reads k keys, no search cost. A key that several patterns name
    is kept once, at its earliest turn.
    """

    name: str = "big_bird"
    window_share: float = 3.0
    first_share: float = 2.0
    random_share: float = 3.0
    draw: int = 0
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("window_share", "first_share", "random_share"):
            check_share(f"selector.{name}", getattr(self, name))
        check_range("selector.draw", self.draw, least=0)

    def prepare(self, cache: Cache) -> Answering:
        """Return the order of the three patterns in turn; there is nothing to prepare."""
        return lambda block: Subset.by_turn(lambda: self._turn(block))

    def _turn(self, block: Block) -> Tensor:
        near_RN = recency(block.num_keys, block.position_R)
        first_N = torch.arange(block.num_keys, device=near_RN.device, dtype=near_RN.dtype)
        random_RN = random_integers(block, self.draw).masked_fill(~block.visible_RN, torch.iinfo(torch.int64).max)
        turn_RN = ranks(random_RN.argsort(dim=-1, stable=True)).double()
        patterns = [
            (self.window_share, near_RN),
            (self.first_share, first_N.expand_as(near_RN)),
            (self.random_share, turn_RN),
        ]
        return interleave(patterns, block.visible_RN)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k."""
        return k
