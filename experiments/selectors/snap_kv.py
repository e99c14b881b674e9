"""SnapKV (arXiv 2404.14469): the last queries vote for keys, and votes are pooled over neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.earlier import MOST_OBSERVED, Observed, ScoresOfRows, by_score
from experiments.selectors.interleave import NEVER, interleave, recency
from experiments.selectors.ranked import TINY

if TYPE_CHECKING:
    from torch import Tensor

POOLINGS = ("max", "mean")


@dataclass
class SnapKV:
    """Keep the row's own key and the observation window, then keys by their pooled votes.

    The votes of a key are the attention of `window` rows. By default they are those just before the row: the method at
    its best. With `frozen` they are the last of the prompt, once, as the method is used: every later key is kept, the
    nearest first, then the prompt's by those votes. It looks at those rows, once per prompt in a time of
    O(window n d), and reads k keys. With `per_kv_head` the query heads that share a cache decide together. A window of
    more than k - 1 keys keeps its latest.
    """

    name: str = "snap_kv"
    window: int = 32
    kernel: int = 7
    pooling: str = "max"
    per_kv_head: bool = True
    frozen: bool = False
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.window", self.window, least=1, most=MOST_OBSERVED)
        check_range("selector.kernel", self.kernel, least=1, most=MOST_OBSERVED)
        if self.kernel % 2 == 0:
            raise UserError(f"selector.kernel={self.kernel}: give an odd number of keys >= 1")
        if self.pooling not in POOLINGS:
            raise UserError(f"selector.pooling={self.pooling}: choose {' or '.join(POOLINGS)}")

    @property
    def traits(self) -> Traits:
        """The method uses earlier rows; with `frozen`, those at the end of the prompt alone."""
        return Traits(looks_back=True, frozen=self.frozen, weighs=True)

    def prepare(self, cache: Cache) -> Answering:
        """Return what counts the votes before every row, or before the end of the prompt once."""
        seen = [Observed(cache, kv_head, self.window) for kv_head in range(len(cache.key_GND))]
        at_end = [self._votes(cache, of_head.before(cache.prompt)) for of_head in seen] if self.frozen else None

        def votes(kv_head: int, position: int) -> Tensor:
            return self._votes(cache, seen[kv_head].before(position)) if at_end is None else at_end[kv_head]

        scores = ScoresOfRows(cache, votes, (lambda vote_SN: vote_SN.mean(0)) if self.per_kv_head else None)

        def answer(block: Block) -> Subset:
            near_RN = recency(block.num_keys, block.position_R)
            newest_R1 = self.window + (block.position_R[:, None] - cache.prompt if self.frozen else 0)

            def turn(votes_RN: Tensor) -> Tensor:
                window_RN = near_RN.masked_fill(near_RN > newest_R1, NEVER)
                # The window's turns come first, for its share is beyond every other.
                patterns = [(2.0 * block.num_keys, window_RN), (1.0, by_score(votes_RN, block.visible_RN))]
                return interleave(patterns, block.visible_RN)

            def log_p() -> Tensor:
                log_RN = scores.of(block).double().clamp(min=TINY).log().masked_fill_(near_RN <= newest_R1, torch.inf)
                return log_RN.masked_fill_(~block.visible_RN, -torch.inf)

            return Subset.by_turn(lambda: scores.turns(block, turn), log_p=log_p)

        return answer

    def _votes(self, cache: Cache, seen_STN: Tensor) -> Tensor:
        """Return the pooled votes [S, N] of the rows just before a position; keys within the window have none."""
        shared, observers, keys = seen_STN.shape
        vote_SN = torch.zeros(shared, cache.num_keys, device=seen_STN.device, dtype=seen_STN.dtype)
        before = keys - observers
        if before:
            functional = torch.nn.functional
            pool = functional.max_pool1d if self.pooling == "max" else functional.avg_pool1d
            counted_S1N = seen_STN[:, :, :before].mean(1)[:, None]
            vote_SN[:, :before] = pool(counted_S1N, self.kernel, stride=1, padding=self.kernel // 2)[:, 0]
        return vote_SN

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: what the votes leave out is dropped for good."""
        return k
