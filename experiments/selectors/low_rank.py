"""The floor of all methods whose weights are products of few features of query and key (Eckart-Young)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Estimate
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.selectors import Answering, Traits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LowRank:
    """Put the best matrix of rank r in place of the rows to come on the keys that all see; later keys are exact.

    No method with r features of query and key has a smaller Frobenius error on that block (polynomials, random
    features, Nystrom, Linformer, coresets). It is made from the rows themselves, all of a head: a floor, not a method.
    It says something where rows are many: give `source.rows=256 source.stride=1`, for r rows of rank r are exact. Rank
    r counts r (V + 1) numbers of state and r of the row.
    """

    name: str = "low_rank"
    traits: ClassVar[Traits] = Traits(estimates=True, looks_at_query=True, sees_ahead=True)
    version: ClassVar[int] = 1

    def prepare(self, cache: Cache) -> Answering:
        """Decompose the rows of each head; return their projections."""
        assert cache.to_come is not None  # runners that run a model refuse it
        cache.check_no_learned_sink(self.name)
        every = cache.to_come()
        common_N = cache.common_N
        exact_RN = torch.softmax(every.logits(cache).double(), -1)[:, common_N]
        direction_of = {
            int(head): torch.linalg.svd(exact_RN[every.head_R == head], full_matrices=False).Vh
            for head in every.head_R.unique()
        }

        def answer(block: Block) -> Estimate:
            log_p_RN = torch.log_softmax(block.logits(cache).double(), -1)
            logsum_R = torch.logsumexp(block.logits(cache).double(), -1)

            def row(k_R: Tensor, logsumexp_R: Tensor) -> Tensor:
                p_RN = log_p_RN.exp()
                w_RN = p_RN.clone()
                numbers = cache.key_GND.shape[2] + cache.value_GNV.shape[2]
                rank_R = (k_R * numbers).div(cache.value_GNV.shape[2] + 2, rounding_mode="floor").long()
                for head, direction_XN in direction_of.items():
                    for rank in rank_R[block.head_R == head].unique().tolist():
                        rows_R = (block.head_R == head) & (rank_R == rank) & (k_R < block.n_R)
                        basis_XN = direction_XN[:rank]
                        w_RN[rows_R.nonzero(), common_N.nonzero()[:, 0]] = p_RN[rows_R][:, common_N] @ (
                            basis_XN.T @ basis_XN
                        )
                return w_RN * (logsum_R - logsumexp_R).exp()[:, None]

            return Estimate(row)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k; the later keys, which are exact, are not counted."""
        return k
