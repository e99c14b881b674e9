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
        heads, rows, keys = log_p_HRN.shape
        log_p_HRN = log_p_HRN.double()
        certain_HRN = torch.isposinf(log_p_HRN)
        total_HR1 = log_p_HRN.masked_fill(certain_HRN, -torch.inf).logsumexp(-1, keepdim=True)
        falling_HRN = (log_p_HRN - total_HR1.nan_to_num(neginf=0.0)).sort(dim=-1, descending=True).values
        rank_N = torch.arange(keys, device=k_R.device)
        least_R1 = (self.floor * k_R.double()).ceil().clamp(min=1)[:, None]
        # What comes first does so rank by rank, so that no head has all of it where the budget ends within.
        falling_HRN = torch.where(torch.isposinf(falling_HRN), FIRST - rank_N, falling_HRN)
        kept_HRN = (rank_N < least_R1) & ~torch.isneginf(falling_HRN)
        of_layer_RX = torch.where(kept_HRN, 2 * FIRST - rank_N, falling_HRN).permute(1, 0, 2).flatten(1)
        most = min(heads * int(k_R.max()), heads * keys)
        best = of_layer_RX.topk(most, sorted=True)
        within_RX = (torch.arange(most, device=k_R.device) < heads * k_R[:, None]) & ~torch.isneginf(best.values)
        k_RH = torch.zeros(rows, heads, dtype=torch.int64, device=k_R.device)
        return k_RH.scatter_add_(1, best.indices // keys, within_RX.long()).T
