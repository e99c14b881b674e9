"""LevAttention (arXiv 2410.05462): keys of large leverage, a set that serves every query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.selectors import Answering, Traits
from experiments.selectors.earlier import by_score
from experiments.selectors.interleave import own_first

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1e-9  # of the mean variance of the keys' channels: keys may span fewer dimensions than they have


@dataclass
class LevAttention:
    """Keep the row's own key, then keys by their leverage k^T (K^T K)^-1 k among those that the row sees.

    It looks at keys alone, in a time of O(n d^2) for a whole prompt, and reads k of them. Its guarantee is for
    attention in proportion to |q.k|^2, where no key weighs more than its leverage whatever the query
    (`runner.score_power=2` measures that). Under softmax it has none.
    """

    name: str = "lev_attention"
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def prepare(self, cache: Cache) -> Answering:
        """Return the order of leverage; rows that see the same keys share it."""
        return lambda block: Subset(lambda: self._order(block, cache))

    def _order(self, block: Block, cache: Cache) -> Tensor:
        score_RN = torch.empty(len(block), block.num_keys, dtype=torch.float64, device=block.query_RD.device)
        rows_per_head = len(block) // len(cache.key_GND)
        for kv_head, key_ND in enumerate(cache.key_GND[:, : block.num_keys]):
            rows = slice(kv_head * rows_per_head, (kv_head + 1) * rows_per_head)
            position_R, visible_RN = block.position_R[rows], block.visible_RN[rows]
            for position in position_R.unique():
                same_R = position_R == position
                score_RN[rows][same_R] = leverage(key_ND, visible_RN[same_R][0])
        return own_first(by_score(score_RN, block.visible_RN).argsort(dim=-1), block.position_R)

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
