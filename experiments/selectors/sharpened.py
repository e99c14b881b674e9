"""Dense attention that is sharper than it was trained to be: a control for what windows do to a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Estimate
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import MOST_LOGIT, check_range
from experiments.selectors import Answering, Traits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Sharpened:
    """Multiply every logit by `factor`; 1 is exact attention.

    A window cuts the tail of a row off and a sharper softmax thins it, so that what helps both is the tail's going, not
    the choice of keys. It looks at this row's exact logits and reads every key with its value.
    """

    factor: float
    name: str = "sharpened"
    traits: ClassVar[Traits] = Traits(estimates=True, looks_at_query=True, has_budget=False)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.factor", self.factor, above=0, most=MOST_LOGIT)

    def prepare(self, cache: Cache) -> Answering:
        """Return the sharper rows; there is nothing to prepare."""
        cache.check_no_learned_sink(self.name)

        def answer(block: Block) -> Estimate:
            def row(k_R: Tensor, logsumexp_R: Tensor) -> Tensor:
                return torch.softmax(self.factor * block.logits(cache).double(), dim=-1)

            def output(k_R: Tensor) -> Tensor:
                groups = len(cache.key_GND)
                return torch.nn.functional.scaled_dot_product_attention(
                    block.query_RD.unflatten(0, (groups, -1))[None],
                    cache.key_GND[None, :, : block.num_keys],
                    cache.value_GNV[None, :, : block.num_keys],
                    attn_mask=block.visible_RN.unflatten(0, (groups, -1))[None],
                    scale=block.scale * self.factor,
                )[0].flatten(0, 1)

            return Estimate(row, output if block.power is None and block.softcap is None else None)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return n."""
        return n.expand(torch.broadcast_shapes(n.shape, k.shape)).to(k.dtype)
