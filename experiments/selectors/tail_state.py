"""Sums over the keys that are not kept exactly, and the outputs of rows made of both.

Shape letters besides those of `experiments.cache`: M keys that are kept exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.selectors.exact_part import FIRST

if TYPE_CHECKING:
    from torch import Tensor


class RunningSums:
    """Sums over a range of the keys of a KV head and their values, float64; both ends of the range move."""

    def __init__(
        self, key_ND: Tensor, value_NV: Tensor, features: Callable[[Tensor, Tensor], Sequence[Tensor]]
    ) -> None:
        """Begin with no keys.

        Parameters
        ----------
        features
            Maps keys and values of M tokens to what is summed over them, float64.
        """
        self._key_ND, self._value_NV, self._features = key_ND, value_NV, features
        self._start = self._stop = 0
        self.sums = list(features(key_ND[:0].double(), value_NV[:0].double()))

    @property
    def n(self) -> int:
        """The number of keys in the range."""
        return self._stop - self._start

    def between(self, start: int, stop: int) -> list[Tensor]:
        """Let the range be that of keys start..stop-1, by those that come and those that go; return the sums."""
        self._add(self._stop, stop)
        self._add(start, self._start)
        self._start, self._stop = start, stop
        return self.sums

    def _add(self, start: int, stop: int) -> None:
        """Add the keys start..stop-1, or take away stop..start-1."""
        low, high, sign = (start, stop, 1.0) if start <= stop else (stop, start, -1.0)
        if low < high:
            added = self._features(self._key_ND[low:high].double(), self._value_NV[low:high].double())
            self.sums = [total + sign * part for total, part in zip(self.sums, added, strict=True)]


class Tail(Protocol):
    """What a state makes of the tail of a row."""

    def __call__(self, kv_head: int, start: int, stop: int, query_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a logarithm, and times its exponential the sum of weights and that of weighted values [V].

        Of the keys start..stop-1, for a query times the scale.
        """
        ...


def is_causal(block: Block) -> bool:
    """Say whether every row sees the keys up to its own and no other."""
    key_N = torch.arange(block.num_keys, device=block.query_RD.device)
    return bool((block.visible_RN == (key_N <= block.own_R1)).all())


def outputs(cache: Cache, block: Block, count_R: Tensor, tail: Tail) -> Tensor:
    """Return the outputs [R, V] of causal rows from their exact keys and the state of the others.

    Parameters
    ----------
    count_R
        Keys that are kept exactly, as `exact_part` counts them. Rows are worked off in the order of their tails, so
        that a state only grows.
    """
    rows_per_head = len(block) // len(cache.key_GND)
    output_RV = torch.empty(len(block), cache.value_GNV.shape[2], dtype=torch.float64, device=count_R.device)
    stop_R = block.own_R1[:, 0] + 1 - (count_R - FIRST).clamp(min=1)  # where the most recent keys begin
    kv_head_R = torch.arange(len(block), device=count_R.device) // rows_per_head
    for r in (kv_head_R * (block.num_keys + 1) + stop_R.clamp(min=0)).argsort(stable=True).tolist():
        own, stop, g = int(block.own_R1[r]), int(stop_R[r]), r // rows_per_head
        first = min(int(count_R[r]) - 1, FIRST, own)
        recent = torch.arange(max(stop, first), own + 1, device=count_R.device)
        key_M = torch.cat([torch.arange(first, device=count_R.device), recent])
        query_D = block.query_RD[r].double() * block.scale
        logits_M = cache.key_GND[g, key_M].double() @ query_D
        exact_MV = cache.value_GNV[g, key_M].double()
        if stop <= first:
            output_RV[r] = torch.softmax(logits_M, 0) @ exact_MV
            continue
        log_scale, total, weighted_V = tail(g, first, stop, query_D)
        highest = torch.maximum(logits_M.max(), log_scale)
        weight_M, factor = (logits_M - highest).exp(), (log_scale - highest).exp()
        output_RV[r] = (weight_M @ exact_MV + factor * weighted_V) / (weight_M.sum() + factor * total)
    return output_RV
