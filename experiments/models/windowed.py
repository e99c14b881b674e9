"""Run a model by a method within one window of a set, or densely, and count the keys that its rows keep.

Shape letters: R rows, N positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.measures.compute import Compute
from experiments.models.attend import LazyRows, attend_by
from experiments.models.earlier import EarlierQueries
from experiments.models.masks import BLOCK
from experiments.models.probe import Attention, watch
from experiments.selectors import Selector
from experiments.windows import PerLayer, Windows


class Kept:
    """How many keys the rows at each position have kept."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._sums: dict[torch.device, Tensor] = {}  # [2, N] keys and rows, on each device that counts

    def add(self, position_R: Tensor, k_R: Tensor, heads: int = 1) -> None:
        """Count the keys that rows at these positions, each at its own, keep, alike in a number of heads."""
        if k_R.device not in self._sums:
            self._sums[k_R.device] = torch.zeros(2, self._tokens, dtype=torch.float64, device=k_R.device)
        self._sums[k_R.device][0, position_R] += heads * k_R.double()
        self._sums[k_R.device][1, position_R] += heads

    def mean(self) -> np.ndarray:
        """Return the keys kept at each position [N], on average over the layers and heads that were counted."""
        of_all = [sums_2N.cpu() for sums_2N in self._sums.values()] or [torch.zeros(2, self._tokens)]
        sum_N, rows_N = torch.stack(of_all).sum(0)
        return (sum_N / rows_N.clamp(min=1)).numpy()


@contextmanager
def within(
    model: Any,
    selector: Selector,
    windows: Windows,
    index: int,
    tokens: int,
    compute: Compute,
    **options: Any,
) -> Iterator[Kept]:
    """Let the rows of a model attend by a method within window number `index`.

    Parameters
    ----------
    tokens
        The longest context that is read inside.
    options
        As of `attend_by`.
    """
    kept, window = Kept(tokens), windows.only(index)
    of_head = cache(window.of_head)

    def keys_kept(exact: LazyRows, position_R: Tensor, layer: int, head: int) -> Tensor:
        k_R = exact.shared_R
        if k_R is None:
            k_R = of_head(layer, head).keys(exact, exact.own, position_R)[:, 0]
        kept.add(position_R, k_R)
        return k_R

    share = window.sharing(0) if window.of_kind(PerLayer) else None
    with attend_by(model, selector, keys_kept, compute, share=share, **options):
        yield kept


@contextmanager
def densely(model: Any, tokens: int, earlier: EarlierQueries | None = None) -> Iterator[Kept]:
    """Let the rows of a model attend as they do, and count the keys that they see; `earlier` keeps their queries."""
    kept = Kept(tokens)

    def count(attention: Attention) -> None:
        if earlier is not None:
            earlier.add(attention)
        heads, queries, keys = len(attention.query_HND), attention.query_HND.shape[1], attention.key_GND.shape[1]
        position_R = attention.first + torch.arange(queries, device=attention.query_HND.device)
        if attention.mask is None:
            kept.add(position_R, position_R + 1 if attention.causal else torch.full_like(position_R, keys), heads)
            return
        for head, block_R in itertools.product(range(attention.masks), position_R.split(BLOCK)):
            visible_RN = attention.visible(head, block_R, keys)
            assert visible_RN is not None  # there is a mask
            kept.add(block_R, visible_RN.sum(-1), heads // attention.masks)

    with watch(model, count):
        yield kept
