"""H2O (arXiv 2306.14048): the keys that have had most attention so far, and the most recent ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.rows import Rows
from experiments.selectors import Ranking
from experiments.selectors.earlier import accumulated, by_score
from experiments.selectors.interleave import check_share, interleave, recency


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

    def __post_init__(self) -> None:
        check_share("selector.recent_share", self.recent_share)
        check_share("selector.heavy_share", self.heavy_share)

    def ranking(self, rows: Rows) -> Ranking:
        """Add up the attention before every row of this head and return the order of the two patterns in turn."""
        score = dict(accumulated(rows, rows.position_R, self.per_kv_head))

        def order(block: Rows, exact: ExactRows) -> Tensor:
            visible_RN = exact.logits_RN.isfinite()
            score_RN = torch.stack([score[position] for position in block.position_R.tolist()])
            near_RN = recency(block.keys, block.position_R)
            heavy_RN = by_score(score_RN, visible_RN)
            return interleave([(self.recent_share, near_RN), (self.heavy_share, heavy_RN)], visible_RN)

        return order

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: what is evicted is never read again."""
        return k
