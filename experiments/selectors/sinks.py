"""Attention sinks with a sliding window (arXiv 2309.17453): the first keys and the most recent ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import MOST_KEYS, check_range
from experiments.selectors import Answering, Traits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Sinks:
    """Keep the row's own key first, then the first `sinks` keys, then the nearest keys (theory.md section 1).

    Before the own key, nearest means most recent; where a row also sees later keys (encoders), it means the smallest
    distance, the lower index first. Rows of a source without positions count as the last of their keys.
    Data-independent: uses neither queries nor keys; reads k keys, no search cost.
    """

    name: str = "sinks"
    sinks: int = 4
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.sinks", self.sinks, least=0, most=MOST_KEYS)

    def prepare(self, cache: Cache) -> Answering:
        """Return the order own key, sinks, nearest keys; there is nothing to prepare."""
        return lambda block: Subset.by_turn(lambda: turns(block, self.sinks))

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k."""
        return k


def turns(block: Block, sinks: int) -> Tensor:
    """Return the turn [R, N] in which rows keep their own key, the first keys and then the nearest."""
    key_N = torch.arange(block.num_keys, device=block.query_RD.device)
    distance_RN = (block.position_R[:, None] - key_N).abs()
    turn_RN = distance_RN + sinks
    turn_RN = torch.where(key_N < sinks, key_N, turn_RN)
    turn_RN = turn_RN.masked_fill_(distance_RN == 0, -1)
    return turn_RN.masked_fill_(~block.visible_RN, 2 * block.num_keys + sinks)
