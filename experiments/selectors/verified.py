"""Exact keys and a weighted sample of the others (after vAttention, arXiv 2510.05688; HyperAttention's residual).

Shape letters besides those of `experiments.rows`: K keys of the lowest turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.answers import Subset, TopK
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Selector, Traits
from experiments.selectors.interleave import ranks
from experiments.selectors.random import random_integers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Verified:
    """Take turns between the keys of another method, which are exact, and keys drawn at random from the others.

    A drawn key weighs the number of the others over the number drawn, so that numerator and denominator of the row are
    unbiased. `exact` is any method that chooses keys without weights. It reads k keys, and what that method's search
    reads for half of them. Its promise, how often the denominator is within epsilon at a sample size of its own choice,
    is measured by `runner=coverage`.
    """

    exact: Any
    name: str = "verified"
    draw: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.draw", self.draw, least=0)
        traits = getattr(self.exact, "traits", None)
        if traits is None or traits.estimates:
            name = self.exact if traits is None else self.exact.name
            raise UserError(f"selector.exact={name}: it keeps no keys; give a method that chooses keys")

    @property
    def traits(self) -> Traits:
        """What the method of the exact keys looks at."""
        of_exact = self.exact.traits
        return Traits(frozen=of_exact.frozen, looks_back=of_exact.looks_back, looks_at_query=of_exact.looks_at_query)

    def prepare(self, cache: Cache) -> Answering:
        """Prepare the method of the exact keys; return the turns of both."""
        answering = self.exact.prepare(cache)

        def answer(block: Block) -> Subset:
            @lru_cache(maxsize=1)
            def places() -> tuple[Tensor, Tensor]:
                """Return the rank of every key for the method, and its turn [R, N]."""
                exact_RN = ranks(chosen_order(self.exact, answering, cache, block))
                number_RN = random_integers(block, self.draw).masked_fill_(~block.visible_RN, MOST)
                drawn_RN = ranks(number_RN.argsort(dim=-1, stable=True))
                turn_RN = torch.minimum(2 * exact_RN, 2 * drawn_RN + 1)
                return exact_RN, turn_RN.masked_fill(~block.visible_RN, MOST)

            def weight(k_R: Tensor) -> Tensor:
                exact_RN, turn_RN = places()
                lowest_RK = turn_RN.topk(int(k_R.max()), dim=-1, largest=False).values
                last_R1 = lowest_RK.gather(1, k_R[:, None].long() - 1)
                certain_RN = exact_RN <= last_R1 // 2
                drawn_RN = (turn_RN <= last_R1) & ~certain_RN
                others_R1 = (block.visible_RN & ~certain_RN).sum(-1, keepdim=True).double()
                stands_for_R1 = others_R1 / drawn_RN.sum(-1, keepdim=True).clamp(min=1)
                return torch.where(drawn_RN, stands_for_R1, 1.0)

            return Subset.by_turn(lambda: places()[1], weight=weight)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and what the search of half of them reads."""
        read: Tensor = self.exact.keys_read(n, k / 2, head_dim)
        return (k / 2 + read).minimum(n)


MOST = 2**63 - 1


def chosen_order(method: Selector, answering: Answering, cache: Cache, block: Block) -> Tensor:
    """Return the order [R, N] in which a method keeps keys.

    Raises
    ------
    UserError
        If it keeps none, or weighs them.
    """
    answer = answering(block)
    if isinstance(answer, TopK):
        return block.logits(cache).argsort(dim=-1, descending=True, stable=True)
    if not isinstance(answer, Subset) or answer.weight is not None:
        raise UserError(f"selector={method.name}: exact keys are those of a method that chooses keys without weights")
    return answer.order()
