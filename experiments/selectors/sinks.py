"""Attention sinks with a sliding window (arXiv 2309.17453): the first keys and the most recent ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.ranges import MOST_KEYS, check_range
from experiments.rows import Rows
from experiments.selectors import Found, Ranking, Search


@dataclass
class Sinks:
    """Keep the row's own key first, then the first `sinks` keys, then the nearest keys (theory.md section 1).

    Before the own key, nearest means most recent; where a row also sees later keys (encoders), it means the smallest
    distance, the lower index first. Rows of a source without positions count as the last of their keys. It may look at
    nothing; it reads k keys and searches none.
    """

    name: str = "sinks"
    sinks: int = 4

    def __post_init__(self) -> None:
        check_range("selector.sinks", self.sinks, least=0, most=MOST_KEYS)

    def ranking(self, rows: Rows) -> Ranking:
        """Return the order own key, sinks, nearest keys."""
        return self._order

    def _order(self, block: Rows, exact: ExactRows) -> Tensor:
        key_N = torch.arange(block.keys, device=block.query_RD.device)
        distance_RN = (block.position_R[:, None] - key_N).abs()
        rank_RN = distance_RN + self.sinks
        rank_RN = torch.where(key_N < self.sinks, key_N, rank_RN)
        rank_RN = rank_RN.masked_fill_(distance_RN == 0, -1)
        rank_RN = rank_RN.masked_fill_(~torch.isfinite(exact.logits_RN), 2 * block.keys + self.sinks)
        return rank_RN.argsort(dim=-1, stable=True)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k."""
        return k

    def index(self, key_GND: Tensor) -> Search:
        """Return a search that has nothing to look for, as in any cache that was pruned beforehand."""
        keys = key_GND.shape[1]
        first = min(self.sinks, keys - 1)
        own_N, first_N = torch.tensor([keys - 1]), torch.arange(first)
        order_N = torch.cat([own_N, first_N, torch.arange(keys - 2, first - 1, -1)]).to(key_GND.device)

        def search(query_HD: Tensor, k: int) -> Found:
            return Found(order_N[:k].expand(len(query_HD), -1))

        return search
