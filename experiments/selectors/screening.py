"""Relevancy screening (arXiv 2006.09471): the attention that a key had while it was recent, frozen when it left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import MOST_KEYS, check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.earlier import Accumulated
from experiments.selectors.interleave import recency
from experiments.selectors.ranked import TINY, ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Screening:
    """Keep the `recent` nearest keys, the own one first, then keys by the attention they had while they were recent.

    A key gathers the attention of `recent` rows, of which its own is the first; then its score is frozen. It looks at
    earlier rows; it reads k keys, and every step compares one key that is no longer recent with the lowest of those
    kept. With `per_kv_head` the query heads that share a cache decide together. The attention counted is exact, over
    all keys: the method's own is over the keys that it has kept, whose sets are not nested in k.
    """

    name: str = "screening"
    recent: int = 64
    per_kv_head: bool = True
    traits: ClassVar[Traits] = Traits(looks_back=True, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.recent", self.recent, least=1, most=MOST_KEYS)

    def prepare(self, cache: Cache) -> Answering:
        """Gather the attention of the prompt's rows; return the order of nearness and then of the frozen scores."""
        gathered = [Accumulated(cache, kv_head, self.recent) for kv_head in range(len(cache.key_GND))]
        for of_head in gathered:
            of_head.before(cache.prompt)

        def answer(block: Block) -> Subset:
            near_RN = recency(block.num_keys, block.position_R)

            def score() -> Tensor:
                rows_per_head, last = len(block) // len(gathered), int(block.position_R.max())
                kept = []
                for of_head, head_R in zip(gathered, block.head_R.split(rows_per_head), strict=True):
                    score_SN = of_head.before(last)[:, : block.num_keys]
                    of_rows = score_SN.sum(0).expand(rows_per_head, -1)
                    kept.append(of_rows if self.per_kv_head else score_SN[head_R % len(score_SN)])
                # a row adds at most 1 per head: what is recent stands above all scores, the nearest highest
                top = block.num_keys + self.recent * len(score_SN)
                return torch.where(near_RN < self.recent, top - near_RN, torch.cat(kept))

            def estimate(score_RN: Tensor) -> Tensor:
                return score_RN.clamp(min=TINY).log().masked_fill_(near_RN < self.recent, torch.inf)

            return ranked(block, score, estimate)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: what is dropped is never read again."""
        return k
