"""A budget parted into a state and keys that are kept exactly: the own key, the first ones, the most recent ones.

Shape letters: R rows, N keys.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from experiments.cache import Block
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.selectors.sinks import turns

if TYPE_CHECKING:
    from torch import Tensor

FIRST = 4  # keys, where sinks are


class ExactPart:
    """What rows of a block keep exactly beside a state that costs as much as `state` keys with their values.

    A budget of all visible keys keeps all of them. A budget below the state and the own key has no value.
    """

    def __init__(self, block: Block, state: float) -> None:
        self.block = block
        self.state = state

    @cached_property
    def _rank_RN(self) -> Tensor:
        return turns(self.block, FIRST).argsort(dim=-1, stable=True).argsort(dim=-1)

    def count(self, k_R: Tensor) -> Tensor:
        """Return how many keys are kept exactly [R], float64; NaN below the least budget."""
        rest_R = (k_R.double() - self.state).floor()
        return torch.where(k_R >= self.block.n_R, self.block.n_R, rest_R.masked_fill(rest_R < 1, torch.nan))

    def masks(self, k_R: Tensor) -> tuple[Tensor, Tensor]:
        """Return which keys are kept exactly and which visible ones are left [R, N]; neither below the least budget."""
        count_R1 = self.count(k_R)[:, None]
        exact_RN = self._rank_RN < count_R1
        return exact_RN, (self._rank_RN >= count_R1) & self.block.visible_RN

    def checked_count(self, k_R: Tensor, selector: str) -> Tensor:
        """Return how many keys are kept exactly [R] int64.

        Raises
        ------
        UserError
            If a budget is below the least.
        """
        count_R = self.count(k_R)
        if bool(count_R.isnan().any()):
            raise too_small(selector, int(k_R[count_R.isnan()].min()), least_budget(self.state))
        return count_R.long()


def least_budget(state: float) -> int:
    """Return the least budget of a method beside whose state the own key is kept, in keys."""
    return int(-(-state // 1)) + 1


def too_small(selector: str, k: int, least: int) -> UserError:
    """Return what is raised where a model is to go on with a row that has no value."""
    return UserError(
        f"selector={selector}: a window of {k} keys is below its least, {least}: give larger ones, as with "
        f"windows/rules=[fixed] windows.fixed=[{2 * least}]"
    )


def with_tail(
    exact_RN: Tensor,
    tail_RN: Tensor,
    logits_RN: Tensor,
    logsumexp_R: Tensor,
    log_scale_R1: Tensor,
    tail_weight_RN: Tensor,
) -> Tensor:
    """Return the estimate [R, N] that is exact on some keys and has weights of its own on others.

    Parameters
    ----------
    log_scale_R1
        Logarithm of what the weights of the tail are to be multiplied by; NaN comes out where a row has neither part.
    """
    none_R1 = ~(exact_RN | tail_RN).any(-1, keepdim=True)
    each_RN = (log_scale_R1 - logsumexp_R[:, None]).exp() * tail_weight_RN
    exact_part_RN = (logits_RN - logsumexp_R[:, None]).exp()
    return torch.where(exact_RN, exact_part_RN, torch.where(tail_RN, each_RN, 0.0)).masked_fill(none_R1, torch.nan)


def output_of_row(row_RN: Tensor, value_GNV: Tensor) -> Tensor:
    """Return the outputs [R, V] of renormalised rows, those of one KV head side by side."""
    row_GSN = (row_RN / row_RN.sum(-1, keepdim=True)).unflatten(0, (len(value_GNV), -1))
    return (row_GSN @ value_GNV[:, : row_RN.shape[1]].double()).flatten(0, 1)
