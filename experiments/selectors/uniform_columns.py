"""Uniform columns, reweighted: the sampling part of HyperAttention (arXiv 2310.05869)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.ranges import check_range
from experiments.rows import Rows
from experiments.selectors import Ranking, Sampled
from experiments.selectors.interleave import own_first
from experiments.selectors.random import random_integers


@dataclass
class UniformColumns:
    """Keep the row's own key, then columns drawn for all rows of a head alike; each stands for (n - 1) / (k - 1) keys.

    It may look at nothing; it reads k keys and searches none.
    """

    name: str = "uniform_columns"
    draw: int = 0

    def __post_init__(self) -> None:
        check_range("selector.draw", self.draw, least=0)

    def ranking(self, rows: Rows) -> Ranking:
        """Draw the order of this head's columns."""
        one = replace(
            rows, position_R=rows.position_R[:1] * 0, query_RD=torch.zeros_like(rows.query_RD[:1]), visible_RN=None
        )
        number_N = random_integers(one, self.draw)[0]

        def order(block: Rows, exact: ExactRows) -> Sampled:
            hidden_RN = ~exact.logits_RN.isfinite()
            turn_RN = number_N.masked_fill(number_N == torch.iinfo(torch.int64).max, 0).expand(len(block), -1)
            turn_RN = turn_RN.masked_fill(hidden_RN, torch.iinfo(torch.int64).max)
            order_RN = own_first(turn_RN.argsort(dim=-1, stable=True), block.position_R)

            def weight(k_R: Tensor) -> Tensor:
                stands_for_R = (exact.n_R - 1).double() / (k_R - 1).clamp(min=1)
                weight_RN = stands_for_R[:, None].expand(-1, block.keys).clone()
                return weight_RN.scatter_(1, order_RN[:, :1], 1.0)

            return Sampled(order_RN, weight)

        return order

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k."""
        return k
