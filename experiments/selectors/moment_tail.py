"""Exact keys and a Gaussian tail: all keys that are not kept, by their count, mean and covariance.

Shape letters besides those of `experiments.rows`: M keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Estimate
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.selectors import Answering, Traits
from experiments.selectors.exact_part import ExactPart, output_of_row, with_tail
from experiments.selectors.tail_state import RunningSums, is_causal, outputs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class MomentTail:
    """Keep the own, the first and the most recent keys exactly, and the others as running moments.

    With logits of mean mu and variance s^2 over the n others, their sum of weights is n exp(mu + s^2 / 2), exact for
    Gaussian logits; beyond s^2 = 2 ln n, where no n Gaussian logits reach that sum, n exp(s sqrt(2 ln n) - ln n) of the
    frozen phase [G5]. Their output is that sum times m + B q, the mean of the values shifted by their covariance with
    the keys. `degree` 0 keeps the means alone: n exp(mu), output m. A row may have negative entries. The state of
    degree 2 costs as much as 49.5 keys of 64 dimensions, whatever n; a budget is that and the exact keys. The state
    takes O(d^2) per token and row. Kin of the second-order features of Based (arXiv 2402.18668) and of Scatterbrain
    (arXiv 2110.15343).
    """

    name: str = "moment_tail"
    degree: int = 2
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.degree not in (0, 2):
            raise UserError(f"selector.degree={self.degree}: choose 0, means alone, or 2, with covariances")

    @property
    def traits(self) -> Traits:
        """It is refreshed by every key that leaves the exact ones."""
        return Traits(estimates=True, looks_at_query=True, flops=self._flops)

    def prepare(self, cache: Cache) -> Answering:
        """Return the rows, and their outputs from the moments."""
        cache.check_no_learned_sink(self.name)
        origin_GD = cache.key_GND[:, 0].double()  # sums of squares about a key lose fewer digits
        moments = [
            RunningSums(key_ND, value_NV, partial(features, origin_D, self.degree))
            for origin_D, key_ND, value_NV in zip(origin_GD, cache.key_GND, cache.value_GNV, strict=True)
        ]

        def tail(kv_head: int, start: int, stop: int, query_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            sums = [total / (stop - start) for total in moments[kv_head].between(start, stop)]
            log_n = torch.tensor(math.log(stop - start), dtype=torch.float64, device=query_D.device)
            one, mean_D, mean_V = torch.ones_like(log_n), sums[0], sums[1]
            log_sum = log_n + query_D @ (mean_D + origin_GD[kv_head])
            if self.degree == 0:
                return log_sum, one, mean_V
            variance = query_D @ sums[2] @ query_D - (query_D @ mean_D).square()
            covariance_VD = sums[3] - torch.outer(mean_V, mean_D)
            return log_sum + log_mean_exp(variance.clamp(min=0), log_n), one, mean_V + covariance_VD @ query_D

        def answer(block: Block) -> Estimate:
            block.check_dot_products(self.name)
            part = ExactPart(block, state_keys(self.degree, cache.key_GND.shape[2], cache.value_GNV.shape[2]))

            @lru_cache(maxsize=1)
            def logits() -> Tensor:
                return block.logits(cache).double()

            def row(k_R: Tensor, logsumexp_R: Tensor) -> Tensor:
                exact_RN, tail_RN = part.masks(k_R)
                return with_tail(exact_RN, tail_RN, logits(), logsumexp_R, *self._tail(logits(), tail_RN))

            def output(k_R: Tensor) -> Tensor:
                count_R = part.checked_count(k_R, self.name)
                if not is_causal(block):
                    return output_of_row(row(k_R, torch.logsumexp(logits(), -1)), cache.value_GNV)
                return outputs(cache, block, count_R, tail)

            return Estimate(row, output)

        return answer

    def _tail(self, logits_RN: Tensor, tail_RN: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the mean weight of a tail's keys [R, 1], and their weights [R, N] in its unit.

        From the moments of their logits, which are those of the keys seen along the query.
        """
        n_R1 = tail_RN.sum(-1, keepdim=True).clamp(min=1).double()
        mean_R1 = torch.where(tail_RN, logits_RN, 0.0).sum(-1, keepdim=True) / n_R1
        off_RN = torch.where(tail_RN, logits_RN - mean_R1, 0.0)
        if self.degree == 0:
            return mean_R1, torch.ones_like(off_RN)
        variance_R1 = off_RN.square().sum(-1, keepdim=True) / n_R1
        return mean_R1 + log_mean_exp(variance_R1, n_R1.log()), 1 + off_RN

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: the state is part of the budget."""
        return k

    def _flops(self, n: Tensor, k: Tensor, head_dim: int, value_dim: int) -> Tensor:
        """Return the exact keys' products, those of the row with the state, and of a token's update."""
        of_state = head_dim + value_dim + self.degree // 2 * (head_dim**2 + head_dim * value_dim)
        exact = torch.where(k < n, k - state_keys(self.degree, head_dim, value_dim), n)
        return exact * (head_dim + value_dim) + torch.where(k < n, 2.0 * of_state, 0.0)


def state_keys(degree: int, head_dim: int, value_dim: int) -> float:
    """Return what the moments cost, in keys with their values."""
    numbers = head_dim + value_dim + 1
    if degree == 2:
        numbers += head_dim * (head_dim + 1) // 2 + head_dim * value_dim
    return numbers / (head_dim + value_dim)


def log_mean_exp(variance: Tensor, log_n: Tensor) -> Tensor:
    """Return ln of the mean of e^x over n Gaussian x of mean 0: s^2 / 2, and frozen beyond s^2 = 2 ln n [G5]."""
    frozen = (2 * variance * log_n).clamp(min=0).sqrt() - log_n
    return torch.where(variance > 2 * log_n, frozen, variance / 2)


def features(origin_D: Tensor, degree: int, key_MD: Tensor, value_MV: Tensor) -> list[Tensor]:
    """Return the sums of keys [D], values [V], and with degree 2 of their products [D, D], [V, D], about an origin."""
    off_MD = key_MD - origin_D
    sums = [off_MD.sum(0), value_MV.sum(0)]
    return sums if degree == 0 else [*sums, off_MD.T @ off_MD, value_MV.T @ off_MD]
