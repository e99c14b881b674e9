"""What a method answers for a block of rows: the most probable keys, a subset of its own choice, or an estimated row.

Shape letters: R rows, N keys, K keys kept, V value dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Kept:
    """The keys that rows keep.

    Attributes
    ----------
    key_RK
        Indices in the order in which they are kept, so that fewer are a prefix.
    log_weight_RK
        Logarithm of what each weighs where the method weighs its keys, for just this K; else None.
    """

    key_RK: Tensor
    log_weight_RK: Tensor | None = None


@dataclass(frozen=True)
class TopK:
    """The most probable keys of each row, ties to the lower index; `first` finds them without the exact row."""

    first: Callable[[int], Kept]


@dataclass(frozen=True)
class Subset:
    """Keys in an order of the method's own; a window of k keys keeps the first k.

    Attributes
    ----------
    order
        Returns the order [R, N], invisible keys last.
    weight
        Maps the numbers of keys kept [R] to the weight of every key [R, N], in key order: one over the probability that
        a key is drawn, 1 where it is kept for certain. None where no key is weighed.
    quick_first
        Maps K to the first K keys where the method finds them without ordering all; they are those of `order`.
    log_p
        Returns what the method takes for the logarithm of each key's probability, up to a constant of the row, in key
        order [R, N]: infinite where it keeps the key whatever it weighs, -inf where the key is not visible. None where
        it has no such estimate.
    turn
        Returns the numbers [R, N] by which keys are ordered, the lowest first, of equal ones the first key: a window's
        keys are then found without ordering all. None where there is more to the order.
    """

    order: Callable[[], Tensor]
    weight: Callable[[Tensor], Tensor] | None = None
    quick_first: Callable[[int], Kept] | None = None
    log_p: Callable[[], Tensor] | None = None
    turn: Callable[[], Tensor] | None = None

    @classmethod
    def by_turn(cls, turn: Callable[[], Tensor], **others: Any) -> Subset:
        """Return keys in the order of their turns; see `turn`."""
        return cls(lambda: turn().argsort(dim=-1, stable=True), turn=turn, **others)

    def best(self) -> Tensor:
        """Return the key that each row keeps first [R, 1]."""
        return self.order()[:, :1] if self.turn is None else self.turn().argmin(-1, keepdim=True)

    def first(self, k: int) -> Kept:
        """Return the first `k` keys of every row."""
        if self.quick_first is not None:
            return self.quick_first(k)
        key_RK = self.order()[:, :k]
        if self.weight is None:
            return Kept(key_RK)
        k_R = torch.full((len(key_RK),), k, device=key_RK.device)
        return Kept(key_RK, self.weight(k_R).gather(1, key_RK).log().float())


@dataclass(frozen=True)
class Estimate:
    """A vector w in key order in place of the probabilities; it may be negative and need not sum to 1.

    Attributes
    ----------
    row
        Maps the budgets in keys [R] and the logarithms of the exact normalisers [R] to w [R, N], float64, relative to
        the exact normaliser: w = p is exact. 0 where a key is not visible. NaN below the method's least budget.
    output
        Maps the budgets [R] to the outputs [R, V] of the renormalised row, where they are made without it; else None.
    """

    row: Callable[[Tensor, Tensor], Tensor]
    output: Callable[[Tensor], Tensor] | None = None


Answer = TopK | Subset | Estimate
