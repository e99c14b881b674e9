"""H2O (arXiv 2306.14048): the keys that have had most attention so far, and the most recent ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.selectors import Answering, Traits
from experiments.selectors.earlier import Accumulated, ScoresOfRows, by_score
from experiments.selectors.interleave import check_share, interleave, recency
from experiments.selectors.ranked import TINY

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class H2O:
    """Take turns between the nearest keys and those with the most attention from all earlier rows, half and half.

    It looks at earlier rows; it reads k keys, and every step adds to k sums, in a time of O(k). With `per_kv_head` the
    query heads that share a cache decide together. The attention counted is exact: what a cache of k keys misses of an
    evicted key's later attention, and that it cannot take an evicted key back, is left out, so that this is the method
    at its best.
    """

    name: str = "h2o"
    recent_share: float = 1.0
    heavy_share: float = 1.0
    per_kv_head: bool = True
    traits: ClassVar[Traits] = Traits(looks_back=True, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_share("selector.recent_share", self.recent_share)
        check_share("selector.heavy_share", self.heavy_share)

    def prepare(self, cache: Cache) -> Answering:
        """Add up the attention of the prompt's rows; return the order of the two patterns in turn."""
        attention = [Accumulated(cache, kv_head) for kv_head in range(len(cache.key_GND))]
        for of_head in attention:
            of_head.before(cache.prompt)

        scores = ScoresOfRows(
            cache,
            lambda kv_head, position: attention[kv_head].before(position),
            (lambda total_SN: total_SN.sum(0)) if self.per_kv_head else None,
        )

        def answer(block: Block) -> Subset:
            def turn(total_RN: Tensor) -> Tensor:
                near_RN = recency(block.num_keys, block.position_R)
                heavy_RN = by_score(total_RN, block.visible_RN)
                patterns = [(self.recent_share, near_RN), (self.heavy_share, heavy_RN)]
                return interleave(patterns, block.visible_RN)

            def log_p() -> Tensor:
                """Return the logarithms of the sums; the own key has had no attention yet, and is kept first."""
                log_RN = scores.of(block).clamp(min=TINY).log().scatter_(1, block.own_R1, torch.inf)
                return log_RN.masked_fill_(~block.visible_RN, -torch.inf)

            return Subset.by_turn(lambda: scores.turns(block, turn), log_p=log_p)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: what is evicted is never read again."""
        return k
