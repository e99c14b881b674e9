"""Bounded entries: a polynomial in place of the exponential (after arXiv 2302.13214), in one pass (2311.14652).

Shape letters besides those of `experiments.cache`: M tokens, F monomials of one degree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Estimate
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import np, torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.exact_part import ExactPart, output_of_row, with_tail
from experiments.selectors.tail_state import RunningSums, is_causal, outputs

if TYPE_CHECKING:
    from torch import Tensor

BASES = ("taylor", "chebyshev")
MOST_DEGREE = 64
MOST_FEATURES = 50_000  # monomials that a state is really made of; beyond, only the row is evaluated


@dataclass
class Polynomial:
    """Keep the own, the first and the most recent keys exactly; weigh the others by a polynomial of their logits.

    A polynomial of degree g in q.k is a product of C(d + g, g) monomials of the query and as many of the key, so that
    sums over the keys of the monomials, and of their products with the values, serve every later row: memory and time
    per row do not grow with n. `taylor` is that of exp at the mean logit of those keys: of an even degree it is
    positive. `chebyshev` is exp's on the row's own range of logits, at best: a method would have to bound the range. An
    odd degree, and chebyshev's even ones, may give a row negative entries; where they sum to nothing the row has
    failed. At d = 64 degree 1 costs as much as 33 keys, degree 2 1089, degree 3 24,328. The theorem asks for
    d = O(log n) and entries o(sqrt(log n)).
    """

    name: str = "polynomial"
    degree: int = 1
    basis: str = "chebyshev"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.degree", self.degree, least=0, most=MOST_DEGREE)
        if self.basis not in BASES:
            raise UserError(f"selector.basis={self.basis}: choose {' or '.join(BASES)}")

    @property
    def traits(self) -> Traits:
        """It is refreshed by every key that leaves the exact ones."""
        return Traits(estimates=True, looks_at_query=True, flops=self._flops)

    def prepare(self, cache: Cache) -> Answering:
        """Return the rows, and their outputs from sums of monomials where these are few enough to be made."""
        cache.check_no_learned_sink(self.name)
        head_dim, value_dim = cache.key_GND.shape[2], cache.value_GNV.shape[2]
        made = self.basis == "taylor" and num_features(self.degree, head_dim) <= MOST_FEATURES
        states = [
            RunningSums(key_ND, value_NV, lambda key_MD, value_MV: sums_of_monomials(key_MD, value_MV, self.degree))
            for key_ND, value_NV in (zip(cache.key_GND, cache.value_GNV, strict=True) if made else ())
        ]

        def tail(kv_head: int, start: int, stop: int, query_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            sums = states[kv_head].between(start, stop)
            powers = [power_sums(query_D, sums[m], m) for m in range(self.degree + 1)]  # of (q.k)^m [V + 1]
            mean = sums[-1] @ query_D / (stop - start)
            total_X = torch.stack(powers).T @ shifted_taylor(mean, self.degree)
            return mean, total_X[-1], total_X[:-1]

        def answer(block: Block) -> Estimate:
            block.check_dot_products(self.name)
            part = ExactPart(block, state_keys(self.degree, head_dim, value_dim))

            @lru_cache(maxsize=1)
            def logits() -> Tensor:
                return block.logits(cache).double()

            def row(k_R: Tensor, logsumexp_R: Tensor) -> Tensor:
                exact_RN, tail_RN = part.masks(k_R)
                weights = taylor(logits(), tail_RN, self.degree) if self.basis == "taylor" else None
                weights = weights or chebyshev(logits(), tail_RN, self.degree)
                return with_tail(exact_RN, tail_RN, logits(), logsumexp_R, *weights)

            def output(k_R: Tensor) -> Tensor:
                count_R = part.checked_count(k_R, self.name)
                if not made or not is_causal(block):
                    return output_of_row(row(k_R, torch.logsumexp(logits(), -1)), cache.value_GNV)
                return outputs(cache, block, count_R, tail)

            return Estimate(row, output)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: the state is part of the budget."""
        return k

    def _flops(self, n: Tensor, k: Tensor, head_dim: int, value_dim: int) -> Tensor:
        """Return the exact keys' products, those of the row with the state, and of a token's update."""
        state = num_features(self.degree, head_dim) * (value_dim + 1.0)
        exact = torch.where(k < n, k - state_keys(self.degree, head_dim, value_dim), n)
        return exact * (head_dim + value_dim) + torch.where(k < n, 2 * state, 0.0)


def num_features(degree: int, head_dim: int) -> int:
    """Return the number of monomials of degrees 0 to `degree`."""
    return math.comb(head_dim + degree, degree)


def state_keys(degree: int, head_dim: int, value_dim: int) -> float:
    """Return what the sums cost, in keys with their values."""
    return num_features(degree, head_dim) * (value_dim + 1) / (head_dim + value_dim)


def taylor(logits_RN: Tensor, tail_RN: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the unit of a tail's weights [R, 1], its mean logit, and exp's series there [R, N]."""
    n_R1 = tail_RN.sum(-1, keepdim=True).clamp(min=1)
    mean_R1 = torch.where(tail_RN, logits_RN, 0.0).sum(-1, keepdim=True) / n_R1
    off_RN = torch.where(tail_RN, logits_RN - mean_R1, 0.0)
    weight_RN = torch.ones_like(off_RN)
    for m in range(degree, 0, -1):  # Horner
        weight_RN = 1 + weight_RN * off_RN / m
    return mean_R1, weight_RN


def chebyshev(logits_RN: Tensor, tail_RN: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the unit of a tail's weights [R, 1], the largest of them, and exp's expansion [R, N].

    On the range of the tail's logits, whose half is a: coefficient 2 I_m(a) of T_m, I_0(a) of T_0.
    """
    from scipy.special import ive

    high_R1 = torch.where(tail_RN, logits_RN, -torch.inf).amax(-1, keepdim=True)
    low_R1 = torch.where(tail_RN, logits_RN, torch.inf).amin(-1, keepdim=True)
    high_R1, low_R1 = (end.masked_fill(end.isinf(), 0.0) for end in (high_R1, low_R1))
    half_R1 = (high_R1 - low_R1) / 2
    x_RN = torch.where(tail_RN, (logits_RN - low_R1 - half_R1) / half_R1.clamp(min=1e-300), 0.0)
    coefficients = ive(np.arange(degree + 1)[:, None, None], half_R1.cpu().numpy())
    coefficient_MR1 = torch.from_numpy(coefficients).to(half_R1)
    before_RN, term_RN = torch.ones_like(x_RN), x_RN
    weight_RN = coefficient_MR1[0].expand_as(x_RN)
    for coefficient_R1 in coefficient_MR1[1:]:
        weight_RN = weight_RN + 2 * coefficient_R1 * term_RN
        before_RN, term_RN = term_RN, 2 * x_RN * term_RN - before_RN
    return high_R1, weight_RN


@lru_cache(maxsize=8)
def _monomials(head_dim: int, degree: int) -> tuple[Tensor, Tensor]:
    """Return the channels [F, degree] of every monomial of one degree, and how often each comes in (x.y)^degree [F]."""
    channels = list(combinations_with_replacement(range(head_dim), degree))
    counts = []
    for monomial in channels:
        repeats = math.prod(math.factorial(monomial.count(channel)) for channel in set(monomial))
        counts.append(math.factorial(degree) / repeats)
    return torch.tensor(channels, dtype=torch.int64).view(len(channels), degree), torch.tensor(counts).double()


def monomials(vector_MD: Tensor, degree: int) -> Tensor:
    """Return the monomials of one degree [M, F] of vectors."""
    channel_FG = _monomials(vector_MD.shape[1], degree)[0].to(vector_MD.device)
    return vector_MD[:, channel_FG].prod(-1)


def sums_of_monomials(key_MD: Tensor, value_MV: Tensor, degree: int) -> Sequence[Tensor]:
    """Return per degree the sums of monomials times values and one [F, V + 1], and last that of the keys [D]."""
    one_MV = torch.cat([value_MV, torch.ones_like(value_MV[:, :1])], dim=1)
    return [*(monomials(key_MD, m).T @ one_MV for m in range(degree + 1)), key_MD.sum(0)]


def power_sums(query_D: Tensor, sum_FX: Tensor, degree: int) -> Tensor:
    """Return the sum over keys of (q.k)^degree times values and one [V + 1]."""
    count_F = _monomials(len(query_D), degree)[1].to(query_D.device)
    return (monomials(query_D[None], degree)[0] * count_F) @ sum_FX


def shifted_taylor(mean: Tensor, degree: int) -> Tensor:
    """Return the coefficients [degree + 1] in x of exp's series in x - mean: they are the query's alone."""
    coefficients = torch.zeros(degree + 1, dtype=torch.float64, device=mean.device)
    for m in range(degree + 1):
        for i in range(m + 1):
            coefficients[i] += math.comb(m, i) * (-mean) ** (m - i) / math.factorial(m)
    return coefficients
