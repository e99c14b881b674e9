"""The vertical-slash pattern of MInference (arXiv 2407.02490): columns and diagonals that the last rows attended to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.ranges import MOST_KEYS, check_range
from experiments.rows import Rows
from experiments.selectors import Ranking
from experiments.selectors.earlier import MOST_OBSERVED, by_score, observed, own_head
from experiments.selectors.interleave import check_share, interleave, own_first, recency


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

    def __post_init__(self) -> None:
        check_range("selector.observed", self.observed, least=1, most=MOST_OBSERVED)
        check_share("selector.vertical_share", self.vertical_share)
        check_share("selector.slash_share", self.slash_share)
        check_range("selector.first", self.first, least=0, most=MOST_KEYS)
        check_range("selector.recent", self.recent, least=0, most=MOST_KEYS)

    def ranking(self, rows: Rows) -> Ranking:
        """Score columns and distances before every row of this head and return their order in turn."""
        scores = {
            stop: self._scores(rows, seen_HTN) for stop, seen_HTN in observed(rows, rows.position_R, self.observed)
        }

        def order(block: Rows, exact: ExactRows) -> Tensor:
            visible_RN = exact.logits_RN.isfinite()
            near_RN = recency(block.keys, block.position_R)
            column_RN = torch.stack([scores[position][0] for position in block.position_R.tolist()])
            distance_RN = torch.stack([scores[position][1] for position in block.position_R.tolist()])
            slash_RN = distance_RN.gather(1, near_RN.long())
            # Attention is at most 1 a row, so that what always comes first stands above all sums, the nearest highest.
            key_N = torch.arange(block.keys, device=near_RN.device)
            top = 2.0 * self.observed + block.keys
            column_RN = torch.where(key_N < self.first, top - key_N, column_RN)
            slash_RN = torch.where(near_RN < self.recent, top - near_RN, slash_RN)
            patterns = [
                (self.slash_share, by_score(slash_RN, visible_RN)),
                (self.vertical_share, by_score(column_RN, visible_RN)),
            ]
            return own_first(interleave(patterns, visible_RN), block.position_R)

        return order

    def _scores(self, rows: Rows, seen_HTN: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention to every column, and at every distance, [N] each."""
        seen_TN = seen_HTN[own_head(rows, len(seen_HTN))].double()
        observers, keys = seen_TN.shape
        column_N = torch.zeros(rows.keys, device=seen_TN.device, dtype=torch.float64)
        distance_N = torch.zeros_like(column_N)
        column_N[:keys] = seen_TN.sum(0)
        position_T = keys - observers + torch.arange(observers, device=seen_TN.device)
        apart_TN = position_T[:, None] - torch.arange(keys, device=seen_TN.device)
        distance_N.index_add_(0, apart_TN.clamp(min=0).flatten(), seen_TN.flatten())  # later keys weigh nothing
        return column_N, distance_N

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: the index is made once for a prompt."""
        return k
