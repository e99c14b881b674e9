"""Uniformly random keys: the control that any rule for choosing must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits

if TYPE_CHECKING:
    from torch import Tensor

MIX = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # of splitmix64, as signed integers


@dataclass
class Random:
    """Keep the row's own key, then keys in a random order of the row's own.

    Data-independent: uses neither queries nor keys; reads k keys, no search cost. The order is a hash of `draw`,
    head, places and the bits of the query's first number, which tell apart rows that share a place: it depends neither
    on blocks nor on other rows, but a query that is rounded otherwise has another order.
    """

    name: str = "random"
    draw: int = 0
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.draw", self.draw, least=0)

    def prepare(self, cache: Cache) -> Answering:
        """Return the order own key, then at random; there is nothing to prepare."""
        return lambda block: Subset.by_turn(lambda: self._turn(block))

    def _turn(self, block: Block) -> Tensor:
        number_RN = random_integers(block, self.draw)
        number_RN.scatter_(1, block.own_R1, torch.iinfo(torch.int64).min)
        return number_RN.masked_fill_(~block.visible_RN, torch.iinfo(torch.int64).max)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k."""
        return k


def random_integers(block: Block, draw: int) -> Tensor:
    """Return an integer [R, N] per row and key, uniform and reproducible: splitmix64 of where the row comes from.

    Rows of the Gaussian source share a position, so a part of the query tells them apart.
    """
    key_N = torch.arange(block.num_keys, device=block.query_RD.device)
    seed = torch.tensor(draw, device=key_N.device) * 1009 + block.sample  # a tensor, as 64 bits wrap around
    seed_R1 = ((seed * 1009 + block.layer) * 1009 + block.head_R)[:, None]
    query_R = block.query_RD[:, 0].float().contiguous().view(torch.int32).long()
    row_R = block.position_R * 0x100000001 + query_R * 0x10001
    mixed = (row_R[:, None] * MIX[1] + seed_R1 * 0x3C6EF372FE95 + key_N) * MIX[0]
    for shift, factor in ((30, MIX[1]), (27, MIX[2])):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return mixed ^ _shifted(mixed, 31)


def _shifted(number: Tensor, bits: int) -> Tensor:
    """Return the number shifted right as if it had no sign."""
    return (number >> bits) & ((1 << (64 - bits)) - 1)
