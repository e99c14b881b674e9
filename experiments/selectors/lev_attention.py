"""LevAttention (arXiv 2410.05462): keys of large leverage, a set that serves every query."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.rows import Rows
from experiments.selectors import Ranking
from experiments.selectors.earlier import by_score
from experiments.selectors.interleave import own_first

RIDGE = 1e-9  # of the mean variance of the keys' channels: keys may span fewer dimensions than they have


@dataclass
class LevAttention:
    """Keep the row's own key, then keys by their leverage k^T (K^T K)^-1 k among those that the row sees.

    It looks at keys alone, in a time of O(n d^2) for a whole prompt, and reads k of them. Its guarantee is for
    attention in proportion to |q.k|^2, where no key weighs more than its leverage whatever the query
    (`runner.score_power=2` measures that). Under softmax it has none.
    """

    name: str = "lev_attention"

    def ranking(self, rows: Rows) -> Ranking:
        """Return the order of leverage; rows that see the same keys share it."""

        def order(block: Rows, exact: ExactRows) -> Tensor:
            visible_RN = exact.logits_RN.isfinite()
            score_RN = torch.empty(len(block), block.keys, dtype=torch.float64, device=visible_RN.device)
            for position in block.position_R.unique():
                same_R = block.position_R == position
                score_RN[same_R] = leverage(block.key_ND, visible_RN[same_R][0])
            return own_first(by_score(score_RN, visible_RN).argsort(dim=-1), block.position_R)

        return order

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: leverage changes slowly, and is known without the query."""
        return k


def leverage(key_ND: Tensor, visible_N: Tensor) -> Tensor:
    """Return the leverage of every key [N] among the visible ones; they add up to the keys' rank."""
    seen_ND = key_ND.double() * visible_N[:, None]
    gram_DD = seen_ND.T @ seen_ND
    ridge = RIDGE * gram_DD.diagonal().mean()
    gram_DD = gram_DD + ridge * torch.eye(len(gram_DD), dtype=gram_DD.dtype, device=gram_DD.device)
    factor_DD = torch.linalg.cholesky(gram_DD)
    solved_DN = torch.linalg.solve_triangular(factor_DD, seen_ND.T, upper=False)
    return solved_DN.square().sum(0)
