"""The oracle keeps the k most probable keys: the least dropped mass that any k keys can have."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from experiments.rows import Rows
from experiments.selectors import Found, Search


@dataclass
class Oracle:
    """Keep the most probable keys; ties go to the lower key index.

    It looks at this row's exact logits, the only one that may: it reads n keys and k values, in a time of O(n d).
    """

    name: str = "oracle"

    def ranking(self, rows: Rows) -> None:
        """Return None: the exact order is the oracle's."""
        return None

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return all keys, and the values of those kept."""
        return (n + k) / 2

    def index(self, key_GND: Tensor) -> Search:
        """Return a search that scores every key; there is nothing to prepare."""

        def search(query_HD: Tensor, k: int) -> Found:
            query_GSD = query_HD.view(len(key_GND), -1, query_HD.shape[1])
            logits_HN = (query_GSD @ key_GND.transpose(1, 2)).view(len(query_HD), -1)
            return Found(logits_HN.topk(k, sorted=True).indices)

        return search
