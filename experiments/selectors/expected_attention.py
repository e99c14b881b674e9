"""Expected attention (after arXiv 2510.00636): what keys would weigh for queries like those before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import MOST_KEYS, check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.earlier import MOST_OBSERVED
from experiments.selectors.interleave import recency
from experiments.selectors.ranked import TINY, ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class ExpectedAttention:
    """Keep all that came after the prompt, the nearest first, then the prompt's first `sinks` keys, then by scores.

    A key's score is its expected weight E exp(q.k) = exp(m.k + k.C k / 2) under Gaussian queries with the mean m and
    the covariance C of the prompt's last `window`; normalised over the prompt's keys, averaged over the query heads
    that share the cache, and, with `value_norm`, times the norm of the key's value. The prompt is pruned once, at its
    end. It looks at those queries, once per prompt in a time of O(n d^2), and reads k keys. Simplified: the paper takes
    the queries of the whole prompt before rotary embedding, and turns their mean and covariance by the mean rotation
    over the positions to come; here they are recent queries as they were asked. A soft cap of logits is left out.
    """

    name: str = "expected_attention"
    window: int = 128
    sinks: int = 4
    value_norm: bool = True
    traits: ClassVar[Traits] = Traits(frozen=True, looks_back=True, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.window", self.window, least=1, most=MOST_OBSERVED)
        check_range("selector.sinks", self.sinks, least=0, most=MOST_KEYS)

    def prepare(self, cache: Cache) -> Answering:
        """Score the prompt's keys; return the order of nearness and then of the scores."""
        score_GN = torch.stack([self._scores(cache, kv_head) for kv_head in range(len(cache.key_GND))])

        def answer(block: Block) -> Subset:
            def score() -> Tensor:
                near_RN = recency(block.num_keys, block.position_R)
                key_N = torch.arange(block.num_keys, device=near_RN.device)
                of_rows_RN = score_GN[:, : block.num_keys].repeat_interleave(len(block) // len(score_GN), dim=0)
                of_rows_RN = torch.where(key_N < self.sinks, 2.0, of_rows_RN)  # a score is at most 1
                return torch.where(key_N < cache.prompt, of_rows_RN, 3.0 + block.num_keys - near_RN)

            return ranked(block, score, self._log_p)

        return answer

    def _log_p(self, score_RN: Tensor) -> Tensor:
        """Return the logarithms of scores; what came after the prompt, and the first keys, have more than 1."""
        return score_RN.clamp(min=TINY).log().masked_fill_(score_RN > 1.0, torch.inf)

    def _scores(self, cache: Cache, kv_head: int) -> Tensor:
        """Return the score of each key of the prompt as a share of the largest [N], float64; 0 for later keys."""
        score_N = torch.zeros(cache.num_keys, dtype=torch.float64, device=cache.key_GND.device)
        if cache.prompt > self.sinks:
            old = slice(self.sinks, cache.prompt)
            query_STD = cache.earlier_queries(kv_head, max(cache.prompt - self.window, 0), cache.prompt).double()
            expected_N = expected(query_STD, cache.key_GND[kv_head, old].double()).mean(0)
            if self.value_norm:
                expected_N *= cache.value_GNV[kv_head, old].double().norm(dim=-1)
            score_N[old] = expected_N / expected_N.max().clamp(min=torch.finfo(expected_N.dtype).tiny)
        return score_N

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: what is pruned is never read again."""
        return k


def expected(query_STD: Tensor, key_ND: Tensor) -> Tensor:
    """Return E exp(q.k) of each head [S, N], as shares of their sum, for the mean and covariance of some queries."""
    mean_S1D = query_STD.mean(1, keepdim=True)
    covariance_SDD = (query_STD - mean_S1D).mT @ (query_STD - mean_S1D) / query_STD.shape[1]
    variance_SN = ((key_ND @ covariance_SDD) * key_ND).sum(-1)
    return torch.softmax((mean_S1D @ key_ND.T)[:, 0] + variance_SN / 2, dim=-1)
