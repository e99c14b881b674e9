"""Which k keys a sparse row keeps. One file per selector; the class is its own Hydra schema.

A selector has `name: str` and `ranking(rows) -> Ranking`. `ranking` is called once per head with all of its rows and
keys, the place to prepare anything that a head needs; the `Ranking` it returns is then called once per block of rows
and says in which order that block's keys are kept. Such a nested order serves every k in one pass. None instead of a
ranking means that the most probable keys are kept, which needs no sorting. A method that draws keys at random and
weighs them by how probable that was returns a `Sampled` order.

`keys_read(n, k, head_dim)` is what a row of n keys then reads of the cache, in keys with their values: a key without
its value counts one half. It is what the method would read at best, whatever our measuring reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.rows import Rows


@dataclass(frozen=True)
class Sampled:
    """An order in which keys are drawn, and what each then weighs.

    Attributes
    ----------
    order_RN
        The order in which keys are kept, invisible keys last.
    weight
        Maps the numbers of keys kept [R] to the weight of every key [R, N], in key order; one over the probability
        that a key is drawn, 1 where it is kept for certain.
    """

    order_RN: Tensor
    weight: Callable[[Tensor], Tensor]


Ranking = Callable[[Rows, ExactRows], Tensor | Sampled]
"""Maps a block of rows and its exact rows to the order [R, N] in which keys are kept, invisible keys last."""


@dataclass(frozen=True)
class Found:
    """What a decode step keeps, per query head.

    Attributes
    ----------
    key_HK
        Indices of the keys in the order in which they are kept, so that fewer are a prefix.
    log_weight_HK
        Logarithm of what each weighs where the method weighs them, for just this K; else None.
    """

    key_HK: Tensor
    log_weight_HK: Tensor | None = None


Search = Callable[[Tensor, int], Found]
"""Maps the queries [H, D] of a decode step, those that share a KV head side by side, and k to the k keys of each."""


class Selector(Protocol):
    """What the runner asks of a selector."""

    name: str

    def ranking(self, rows: Rows) -> Ranking | None:
        """Prepare one head and return the ranking of its keys, block by block."""
        ...

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return what rows of `n` keys read that keep `k` of them, in keys with their values."""
        ...


def each(selector: Any) -> list[Selector]:
    """Return the selectors that are measured side by side: those of `several`, or the one."""
    return list(selector.parts.values()) if hasattr(selector, "parts") else [selector]
