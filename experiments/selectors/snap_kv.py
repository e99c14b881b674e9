"""SnapKV (arXiv 2404.14469): the last queries vote for keys, and votes are pooled over neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from experiments.errors import UserError
from experiments.measures.exact import ExactRows
from experiments.ranges import check_range
from experiments.rows import Rows
from experiments.selectors import Ranking
from experiments.selectors.earlier import MOST_OBSERVED, by_score, observed, own_head
from experiments.selectors.interleave import NEVER, interleave, recency

POOLINGS = ("max", "mean")


@dataclass
class SnapKV:
    """Keep the row's own key and the observation window, then keys by their pooled votes.

    The votes of a key are the attention of the `window` rows just before the row: the prompt ends there, which is the
    method at its best, for later rows of an answer go by older votes. It looks at those rows, once per prompt in a
    time of O(window n d), and reads k keys. With `per_kv_head` the query heads that share a cache decide together. A
    window of more than k - 1 keys keeps its latest.
    """

    name: str = "snap_kv"
    window: int = 32
    kernel: int = 7
    pooling: str = "max"
    per_kv_head: bool = True

    def __post_init__(self) -> None:
        check_range("selector.window", self.window, least=1, most=MOST_OBSERVED)
        check_range("selector.kernel", self.kernel, least=1, most=MOST_OBSERVED)
        if self.kernel % 2 == 0:
            raise UserError(f"selector.kernel={self.kernel}: give an odd number of keys >= 1")
        if self.pooling not in POOLINGS:
            raise UserError(f"selector.pooling={self.pooling}: choose {' or '.join(POOLINGS)}")

    def ranking(self, rows: Rows) -> Ranking:
        """Count the votes before every row of this head and return the order window, then votes."""
        votes = {stop: self._votes(rows, seen_HTN) for stop, seen_HTN in observed(rows, rows.position_R, self.window)}

        def order(block: Rows, exact: ExactRows) -> Tensor:
            visible_RN = exact.logits_RN.isfinite()
            votes_RN = torch.stack([votes[position] for position in block.position_R.tolist()])
            near_RN = recency(block.keys, block.position_R)
            window_RN = near_RN.masked_fill(near_RN > self.window, NEVER)
            # The window's turns come first, for its share is beyond every other.
            return interleave([(2.0 * block.keys, window_RN), (1.0, by_score(votes_RN, visible_RN))], visible_RN)

        return order

    def _votes(self, rows: Rows, seen_HTN: Tensor) -> Tensor:
        """Return the pooled votes [N] of the rows of an observation window; keys within it have none."""
        heads, observers, keys = seen_HTN.shape
        vote_N = torch.zeros(rows.keys, device=rows.query_RD.device, dtype=seen_HTN.dtype)
        before = keys - observers
        if before:
            vote_HN = seen_HTN[:, :, :before].mean(1)
            if not self.per_kv_head:
                vote_HN = vote_HN[own_head(rows, heads)][None]
            pool = max_pool1d if self.pooling == "max" else avg_pool1d
            pooled_H1N = pool(vote_HN[:, None], self.kernel, stride=1, padding=self.kernel // 2)
            vote_N[:before] = pooled_H1N[:, 0].mean(0)
        return vote_N

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: what the votes leave out is dropped for good."""
        return k
