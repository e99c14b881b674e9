"""Run a model within one window of a set, and count the keys that its rows keep."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.measures import RowFacts
from experiments.models.sparse_forward import attend_to_top_k
from experiments.windows import Windows


class Kept:
    """How many keys the rows at each position have kept."""

    def __init__(self, windows: Windows, tokens: int) -> None:
        self._windows = windows
        self._of_head: dict[tuple[int, int], Windows] = {}
        self._sum_N = torch.zeros(tokens, dtype=torch.float64)
        self._rows_N = torch.zeros(tokens, dtype=torch.float64)

    def __call__(self, exact: RowFacts, position_R: Tensor, layer: int, head: int) -> Tensor:
        """Return the keys that a block of rows keeps [R]; `windows` holds one window."""
        place = layer, head
        if place not in self._of_head:
            self._of_head[place] = self._windows.of_head(layer, head)
        k_R = self._of_head[place].keys(exact)[:, 0]
        position_R = position_R.cpu()
        self._sum_N[position_R] += k_R.cpu().double()
        self._rows_N[position_R] += 1
        return k_R

    def mean(self) -> np.ndarray:
        """Return the keys kept at each position, on average over the layers and heads that asked."""
        return (self._sum_N / self._rows_N.clamp(min=1)).numpy()


@contextmanager
def within(
    model: Any,
    windows: Windows,
    index: int,
    tokens: int,
    *,
    layers: Collection[int] | None = None,
    keep_first: int = 0,
    keep_recent: int = 0,
) -> Iterator[Kept]:
    """Let the rows of a model attend within window number `index`; see `attend_to_top_k`.

    Parameters
    ----------
    tokens
        The longest context that is read inside.
    """
    kept = Kept(windows.only(index), tokens)
    with attend_to_top_k(model, kept, layers=layers, keep_first=keep_first, keep_recent=keep_recent):
        yield kept
