"""Ranked rows cut into bags of keys, so that what windows keep and drop are sums over whole bags.

Shape letters: M rows, N keys, W windows, B bags; X any further axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.batched.running_sums import running_sums

BAG = 1024  # keys at most that float32 adds up before float64 takes over


@dataclass(frozen=True)
class Bags:
    """Rows cut at the end of every window, and at least every `BAG` keys.

    Attributes
    ----------
    start_MB, stop_MB
        The first key of each bag, and the key after its last, in rank order, int64.
    first_MW
        The first bag that each window drops.
    """

    start_MB: Tensor
    stop_MB: Tensor
    first_MW: Tensor

    @classmethod
    def cut(cls, keys: int, k_MW: Tensor) -> Bags:
        """Cut rows of `keys` ranked keys, of which windows keep the first `k_MW`."""
        rows = len(k_MW)
        grid_MB = torch.arange(0, keys, BAG, device=k_MW.device).expand(rows, -1)
        start_MB = torch.cat([grid_MB, k_MW], dim=1).sort(dim=-1).values
        stop_MB = torch.cat([start_MB[:, 1:], start_MB.new_full((rows, 1), keys)], dim=1)
        return cls(start_MB, stop_MB, torch.searchsorted(start_MB, k_MW.contiguous()))

    def split(self, sum_MXB: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sums over what windows keep and over what they drop, each [M, ..., W], and over all bags [M, ...].

        What is dropped is added up from the least probable key, so that a small sum is as exact as a large one.
        """
        before_MXB, from_MXB = running_sums(sum_MXB), running_sums(sum_MXB, from_end=True)
        last_MW = (self.first_MW - 1).clamp(min=0)  # a window keeps one key at least
        return _at(before_MXB, last_MW), _at(from_MXB, self.first_MW), from_MXB[..., 0]


def _at(sum_MXB: Tensor, bag_MW: Tensor) -> Tensor:
    if sum_MXB.ndim == 3:
        bag_MW = bag_MW[:, None].expand(-1, sum_MXB.shape[1], -1)
    return sum_MXB.gather(-1, bag_MW)
