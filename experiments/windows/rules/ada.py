"""One budget over the heads of a layer, shared by the method's own estimates (Ada-KV, arXiv 2407.11550).

Shape letters: H heads, R rows, N keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.lazy import torch
from experiments.ranges import check_range

if TYPE_CHECKING:
    from torch import Tensor

FIRST = 1e12  # above every logarithm, by more than there are keys


@dataclass
class Ada:
    """Windows of as many keys as the list says, on average over the heads of a layer.

    Every head keeps a share `floor` of that many. The rest goes to the keys of the layer that are most probable by the
    method's own estimate, whichever head they are of. A head that sees fewer keys leaves what it cannot use to others.
    """

    keys: list[int]
    floor: float = 0.2
    rule: str = "ada"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.ada", self.keys, least=1)
        check_range("windows.rules.ada.floor", self.floor, least=0, most=1)

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (k, 1) per window."""
        return [(k, 1.0) for k in self.keys]

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return the mean over heads for every row."""
        return parameter_W.expand(n_R.numel(), -1)

    def share(self, log_p_HRN: Tensor, k_R: Tensor) -> Tensor:
        """Return the keys of each head [H, R]; they add up to H k, or to all that the heads see.

        Keys that a method keeps whatever they weigh come first, and are part of the budget.
        """
        heads = len(log_p_HRN)
        certain_HRN = torch.isposinf(log_p_HRN)
        total_HR1 = log_p_HRN.double().masked_fill(certain_HRN, -torch.inf).logsumexp(-1, keepdim=True)
        keys = min(log_p_HRN.shape[-1], heads * int(k_R.max()))  # a head may get all, and no more
        falling_HRN = log_p_HRN.topk(keys).values.double() - total_HR1.nan_to_num(neginf=0.0)
        rank_N = torch.arange(keys, device=k_R.device)
        least_R1 = (self.floor * k_R.double()).ceil().clamp(min=1)[:, None]
        # What comes first does so rank by rank, so that no head has all of it where the budget ends within.
        falling_HRN = torch.where(torch.isposinf(falling_HRN), FIRST - rank_N, falling_HRN)
        kept_HRN = (rank_N < least_R1) & ~torch.isneginf(falling_HRN)
        of_layer_RNH = torch.where(kept_HRN, 2 * FIRST - rank_N, falling_HRN).permute(1, 2, 0)
        budget_R1 = (heads * k_R).minimum((of_layer_RNH > -torch.inf).sum((1, 2)))[:, None]  # all that the heads see
        best = of_layer_RNH.flatten(1).topk(int(budget_R1.max()), sorted=True)
        last_R11 = best.values.gather(1, budget_R1 - 1)[..., None]
        above_RNH, tied_RNH = of_layer_RNH > last_R11, of_layer_RNH == last_R11
        # Equal ones, as of a page, go rank by rank: then no head's share depends on which rows are asked together.
        left_R1 = budget_R1 - above_RNH.sum((1, 2))[:, None]
        first_RX = tied_RNH.flatten(1).cumsum(1) <= left_R1
        return (above_RNH | (tied_RNH & first_RX.unflatten(1, (keys, heads)))).sum(1).T
