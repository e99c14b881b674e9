"""The vertical-slash pattern of MInference (arXiv 2407.02490): columns and diagonals that the last rows attended to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import MOST_KEYS, check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.earlier import MOST_OBSERVED, Observed, ScoresOfRows, by_score
from experiments.selectors.interleave import check_share, interleave, recency

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class VerticalSlash:
    """Take turns between the keys of the best columns and those at the best distances from the row.

    Columns and distances are scored by the attention of the `observed` rows just before the row: the prompt's last
    rows, which the method takes, would see the future of all others. The first `first` columns and the nearest
    `recent` distances come before the rest of their kind. It looks at those rows, in a time of O(observed n d) that a
    whole prompt shares, and reads k keys. How many columns and diagonals a head gets, the method searches offline;
    here they have equal shares.
    """

    name: str = "vertical_slash"
    observed: int = 64
    vertical_share: float = 1.0
    slash_share: float = 1.0
    first: int = 30
    recent: int = 100
    traits: ClassVar[Traits] = Traits(looks_back=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.observed", self.observed, least=1, most=MOST_OBSERVED)
        check_share("selector.vertical_share", self.vertical_share)
        check_share("selector.slash_share", self.slash_share)
        check_range("selector.first", self.first, least=0, most=MOST_KEYS)
        check_range("selector.recent", self.recent, least=0, most=MOST_KEYS)

    def prepare(self, cache: Cache) -> Answering:
        """Return what scores columns and distances before every row, and orders them in turn."""
        seen = [Observed(cache, kv_head, self.observed) for kv_head in range(len(cache.key_GND))]
        scores = ScoresOfRows(cache, lambda g, position: self._scores(cache, seen[g].before(position).double()), None)

        def answer(block: Block) -> Subset:
            return Subset.by_turn(lambda: self._turn(block, scores.of(block)))

        return answer

    def _turn(self, block: Block, score_R2N: Tensor) -> Tensor:
        column_RN, distance_RN = score_R2N.unbind(1)
        near_RN = recency(block.num_keys, block.position_R)
        slash_RN = distance_RN.gather(1, near_RN.long())
        # Attention is at most 1 a row, so that what always comes first stands above all sums, the nearest highest.
        key_N = torch.arange(block.num_keys, device=near_RN.device)
        top = 2.0 * self.observed + block.num_keys
        column_RN = torch.where(key_N < self.first, top - key_N, column_RN)
        slash_RN = torch.where(near_RN < self.recent, top - near_RN, slash_RN)
        patterns = [
            (self.slash_share, by_score(slash_RN, block.visible_RN)),
            (self.vertical_share, by_score(column_RN, block.visible_RN)),
        ]
        return interleave(patterns, block.visible_RN).scatter_(1, block.own_R1, -1.0)

    def _scores(self, cache: Cache, seen_STN: Tensor) -> Tensor:
        """Return the attention to every column, and at every distance [S, 2, N], of the rows just before a position."""
        shared, observers, keys = seen_STN.shape
        score_S2N = torch.zeros(shared, 2, cache.num_keys, device=seen_STN.device, dtype=torch.float64)
        score_S2N[:, 0, :keys] = seen_STN.sum(1)
        position_T = keys - observers + torch.arange(observers, device=seen_STN.device)
        apart_TN = position_T[:, None] - torch.arange(keys, device=seen_STN.device)
        # later keys weigh nothing
        score_S2N[:, 1].index_add_(1, apart_TN.clamp(min=0).flatten(), seen_STN.flatten(1))
        return score_S2N

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: the index is made once for a prompt."""
        return k
