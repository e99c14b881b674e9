"""The mean of the values in place of attention: what any approximation must beat on rows that are nearly flat."""

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
class MeanValue:
    """Estimate every row as 1/n, which puts out the mean of the values that it sees.

    Data-independent: uses neither queries nor keys, and keeps no key. A running sum of values serves every row, which
    reads one value.
    """

    name: str = "mean_value"
    traits: ClassVar[Traits] = Traits(estimates=True, has_budget=False)
    version: ClassVar[int] = 1

    def prepare(self, cache: Cache) -> Answering:
        """Add up the values; return the mean of those that a row sees."""
        cache.check_no_learned_sink(self.name)
        sum_GNV = cache.value_GNV.double().cumsum(1)

        def answer(block: Block) -> Estimate:
            row_RN = block.visible_RN.double() / block.n_R[:, None]
            key_N = torch.arange(block.num_keys, device=row_RN.device)
            causal = bool((block.visible_RN == (key_N <= block.own_R1)).all())

            def output(k_R: Tensor) -> Tensor:
                if not causal:
                    value_GNV = cache.value_GNV[:, : block.num_keys].double()
                    return (row_RN.unflatten(0, (len(value_GNV), -1)) @ value_GNV).flatten(0, 1)
                last_GS1 = block.own_R1.unflatten(0, (len(sum_GNV), -1))
                sum_GSV = sum_GNV.gather(1, last_GS1.expand(-1, -1, sum_GNV.shape[2]))
                return sum_GSV.flatten(0, 1) / block.n_R[:, None]

            return Estimate(lambda k_R, logsumexp_R: row_RN, output)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return one half: a value without its key."""
        return torch.full_like(k, 0.5)
