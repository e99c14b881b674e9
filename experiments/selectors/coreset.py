"""A weighted coreset of the prompt's keys (after WildCat, arXiv 2602.10056, and Nystrom).

Shape letters besides those of `experiments.cache`: P keys of the prompt, C keys of the coreset, Q held-out queries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Estimate
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.exact_part import FIRST, ExactPart, with_tail

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1e-9  # of the kernel's diagonal
SPENT = 1e-12  # share of a diagonal entry below which a key is explained
MOST_NORM = 300.0  # |y|^2, whose exponential is still far from infinite
LEAST_SUM = 0.01  # of a held-out row that has not failed
HELD_OUT = 32  # queries before the prompt's end, which choose it


@dataclass
class Coreset:
    """Keep half of the budget exactly, and let weighted keys of the prompt stand for the rest of it.

    With y = (k - mean) sqrt(scale) / c and x = c q sqrt(scale), exp(x.y) is a row's weight up to a factor. Keys are
    drawn by randomly pivoted Cholesky of the kernel exp(y.y'), each in proportion to what the others do not explain of
    its diagonal; K_SS^-1 K_S,j are then the weights with which the coreset S stands for key j. c is the root of the
    ratio of the norms of keys and queries times one of `factors`, the one of least total variation for the 32 queries
    before the prompt's end. The coreset is frozen at the prompt's end; later keys are kept exactly, then the first
    four, then the most recent. Weights may be negative. It looks at the prompt's keys and those queries; it reads k
    keys, and preparing takes O(r^2 n + r n d) once.
    """

    name: str = "coreset"
    factors: list[float] = field(default_factory=partial(list, (0.25, 0.5, 1.0, 2.0)))
    draw: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.factors", self.factors, above=0, most=1e3)
        if not self.factors:
            raise UserError("selector.factors is empty: name at least one")
        check_range("selector.draw", self.draw, least=0)

    @property
    def traits(self) -> Traits:
        """It is frozen at the prompt's end, and chooses its factor by queries before it."""
        return Traits(estimates=True, frozen=True, looks_back=True, looks_at_query=True, flops=_flops)

    def prepare(self, cache: Cache) -> Answering:
        """Return the rows; the coreset of each budget is drawn once."""
        cache.check_no_learned_sink(self.name)

        @lru_cache(maxsize=64)
        def weighted(kv_head: int, k: int) -> Weighted | None:
            return self._weighted(cache, kv_head, k)

        def answer(block: Block) -> Estimate:
            block.check_dot_products(self.name)
            rows_per_head = len(block) // len(cache.key_GND)
            kv_head_R = torch.arange(len(block), device=block.query_RD.device) // rows_per_head
            key_N = torch.arange(block.num_keys, device=kv_head_R.device)
            known_N = cache.common_N[: block.num_keys] & (key_N < cache.prompt)
            logits_RN = block.logits(cache).double()

            def row(k_R: Tensor, logsumexp_R: Tensor) -> Tensor:
                w_RN = torch.full((len(block), block.num_keys), torch.nan, dtype=torch.float64, device=k_R.device)
                for k in k_R.unique().tolist():
                    exact_RN, tail_RN = ExactPart(block, int(k) // 2).masks(k_R)
                    defined_R = (k_R == k) & ~(tail_RN & ~known_N).any(-1)  # a later key stands in no coreset
                    for g in range(len(cache.key_GND)):
                        rows_R = defined_R & (kv_head_R == g)
                        if not bool(rows_R.any()):
                            continue
                        parts = exact_RN[rows_R], tail_RN[rows_R], logits_RN[rows_R], logsumexp_R[rows_R]
                        weights = torch.zeros_like(logsumexp_R[rows_R][:, None]), torch.zeros_like(logits_RN[rows_R])
                        if bool(tail_RN[rows_R].any()):
                            coreset = weighted(g, int(k))
                            if coreset is None:
                                continue
                            weights = coreset.weights(block.query_RD[rows_R].double() * block.scale, block.num_keys)
                        w_RN[rows_R] = with_tail(*parts, *weights)
                return w_RN

            return Estimate(row)

        return answer

    def _weighted(self, cache: Cache, kv_head: int, k: int) -> Weighted | None:
        """Return the coreset of a budget of k keys with the best factor; None if there is no key to draw."""
        prompt = cache.prompt
        key_PD = cache.key_GND[kv_head, :prompt].double()
        common_P = cache.common_N[:prompt]
        drawn_P = common_P & (torch.arange(prompt, device=key_PD.device) >= FIRST)
        width = key_PD.shape[1] + cache.value_GNV.shape[2]
        most = min(k // 2 * width // (width + 1), int(drawn_P.sum()))
        if most < 1:
            return None
        query_QD = cache.earlier_queries(kv_head, max(prompt - HELD_OUT, 0), prompt).flatten(0, 1).double()
        kept_P = ~drawn_P
        kept_P[max(prompt - (k - k // 2 - FIRST), 0) :] = True
        logits_QP = (query_QD @ key_PD.T).masked_fill(~common_P, -torch.inf)

        def variation(coreset: Weighted) -> float:
            """Return the mean total variation of the held-out queries' rows; 1 at least where one fails."""
            logsumexp_Q = logits_QP.logsumexp(-1)
            p_QP = (logits_QP - logsumexp_Q[:, None]).exp()
            exact_QP, tail_QP = ((part_P & common_P).expand_as(p_QP) for part_P in (kept_P, ~kept_P))
            weights = coreset.weights(query_QD, len(key_PD))
            w_QP = with_tail(exact_QP, tail_QP, logits_QP, logsumexp_Q, *weights)
            off_QP = w_QP / w_QP.sum(-1, keepdim=True).clamp(min=LEAST_SUM) - p_QP
            return float(off_QP.abs().sum(-1).mean()) / 2

        drawn = (Weighted.draw(key_PD, common_P, drawn_P, query_QD, factor, most, self.draw) for factor in self.factors)
        return min((coreset for coreset in drawn if coreset is not None), key=variation, default=None)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: a weight is one number beside a key and its value."""
        return k


def _flops(n: Tensor, k: Tensor, head_dim: int, value_dim: int) -> Tensor:
    """Return the products of a row, and the drawing and solving divided by n."""
    half = torch.where(k < n, k / 2, 0.0)
    return k.minimum(n) * (head_dim + value_dim) + half.square() + half * head_dim


class Weighted:
    """Keys that stand for others."""

    def __init__(self, point_CD: Tensor, weight_CP: Tensor, mean_D: Tensor, stretch: float) -> None:
        """Take the coreset in the coordinates of the kernel, and what each of it contributes to every key.

        Parameters
        ----------
        mean_D, stretch
            What keys have lost, and the factor of queries.
        """
        self.point_CD, self.weight_CP, self.mean_D, self.stretch = point_CD, weight_CP, mean_D, stretch

    @classmethod
    def draw(
        cls, key_PD: Tensor, common_P: Tensor, drawn_P: Tensor, query_QD: Tensor, factor: float, most: int, seed: int
    ) -> Weighted | None:
        """Draw a coreset of at most `most` keys among `drawn_P`; None if the kernel overflows.

        Parameters
        ----------
        query_QD
            Queries times the scale, by whose norms the coordinates are chosen.
        """
        mean_D = key_PD[common_P].mean(0)
        off_PD = torch.where(common_P[:, None], key_PD - mean_D, 0.0)
        norms = off_PD[drawn_P].norm(dim=-1).mean(), query_QD.norm(dim=-1).mean()
        stretch = factor * float((norms[0].clamp(min=1e-12) / norms[1].clamp(min=1e-12)).sqrt())
        point_PD = off_PD / stretch
        if float(point_PD.square().sum(-1).max()) > MOST_NORM:
            return None
        pivot_C = pivots(point_PD[drawn_P], most, seed)
        point_CD = point_PD[drawn_P][pivot_C]
        # exp(y.y') with its diagonal divided out is exp(-|y - y'|^2 / 2), which is far better conditioned
        half_C, half_P = point_CD.square().sum(-1) / 2, point_PD.square().sum(-1) / 2
        kernel_CC = (point_CD @ point_CD.T - half_C[:, None] - half_C).exp()
        kernel_CP = (point_CD @ point_PD.T - half_C[:, None] - half_P).exp()
        factor_CC, failed = torch.linalg.cholesky_ex(kernel_CC + RIDGE * torch.eye(len(kernel_CC)).to(kernel_CC))
        if int(failed):
            return None
        weight_CP = torch.cholesky_solve(kernel_CP, factor_CC) * (half_P - half_C[:, None]).exp()
        return cls(point_CD, weight_CP.masked_fill(~common_P, 0.0), mean_D, stretch)

    def weights(self, query_RD: Tensor, keys: int) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the unit of each row's weights [R, 1], and those of `keys` keys [R, N]."""
        product_RC = (self.stretch * query_RD) @ self.point_CD.T
        highest_R1 = product_RC.amax(-1, keepdim=True)
        weight_RP = (product_RC - highest_R1).exp() @ self.weight_CP
        weight_RN = query_RD.new_zeros(len(query_RD), keys)
        weight_RN[:, : weight_RP.shape[1]] = weight_RP[:, :keys]
        return highest_R1 + (query_RD @ self.mean_D)[:, None], weight_RN


def pivots(point_PD: Tensor, most: int, seed: int) -> Tensor:
    """Return the pivots [C] of a randomly pivoted Cholesky factor of the kernel exp(y.y'), at most `most`."""
    generator = torch.Generator().manual_seed(seed)
    first_P = point_PD.square().sum(-1).exp()
    left_P, chosen = first_P.clone(), []
    factor_PC = point_PD.new_zeros(len(point_PD), most)
    for i in range(most):
        if float((left_P / first_P).max()) < SPENT:
            break
        sum_P = left_P.cumsum(0)
        at = float(torch.rand((), generator=generator, dtype=torch.float64)) * float(sum_P[-1])
        pivot = min(int(torch.searchsorted(sum_P, at)), len(sum_P) - 1)
        column_P = (point_PD @ point_PD[pivot]).exp() - factor_PC[:, :i] @ factor_PC[pivot, :i]
        if float(column_P[pivot]) <= 0:  # explained but for rounding
            left_P[pivot] = 0.0
            continue
        factor_PC[:, i] = column_P / column_P[pivot].sqrt()
        left_P = (left_P - factor_PC[:, i].square()).clamp(min=0)
        left_P[pivot] = 0.0
        chosen.append(pivot)
    return torch.tensor(chosen, dtype=torch.int64, device=point_PD.device)
