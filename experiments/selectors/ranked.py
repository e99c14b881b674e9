"""An order of keys by a score of each: what methods share that approximate a row's logits, or know keys alone.

Shape letters besides those of `experiments.cache`: X rows of what stands for the keys, K keys kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.answers import Kept, Subset
from experiments.cache import Block, cap_, log_of_power
from experiments.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-300  # stands for no attention at all in the logarithm of a score, float64


def ranked(block: Block, score: Callable[[], Tensor], estimate: Callable[[Tensor], Tensor] | None = None) -> Subset:
    """Return the row's own key, then the others by falling scores [R, N]; ties go to the lower key index.

    Parameters
    ----------
    estimate
        Makes of the scores what the method takes for logarithms of probabilities (`Subset.log_p`); None if they are
        none.
    """

    def own_first() -> Tensor:
        score_RN = score().masked_fill(~block.visible_RN, -torch.inf)
        return score_RN.scatter_(1, block.own_R1, torch.inf)

    def order() -> Tensor:
        return own_first().argsort(dim=-1, descending=True, stable=True)

    def first(k: int) -> Kept:
        best = own_first().topk(min(k + 1, block.num_keys), sorted=True)
        if bool((best.values[:, 1:] == best.values[:, :-1]).any()):  # topk takes any of equal scores
            return Kept(order()[:, :k])
        return Kept(best.indices[:, :k])

    def log_p() -> Tensor:
        assert estimate is not None
        return estimate(score()).masked_fill(~block.visible_RN, -torch.inf)

    return Subset(order, quick_first=first, log_p=None if estimate is None else log_p, turn=lambda: own_first().neg_())


def as_logits(block: Block, product_RX: Tensor) -> Tensor:
    """Return the logits [R, X] of `products`, scaled and capped as the block's own are."""
    product_RX = product_RX * block.scale
    if block.power is not None:
        product_RX = log_of_power(product_RX, block.power)
    return cap_(product_RX, block.softcap)


def products(query_RD: Tensor, key_GXD: Tensor, block: Block) -> Tensor:
    """Return what a block's queries make of each KV head's keys, or of what stands for them [R, X].

    Not scaled or capped: a row's order is that of its logits. Under attention in proportion to a power of the product,
    the products' sizes.
    """
    dtype = torch.promote_types(query_RD.dtype, torch.float32)
    query_GSD = query_RD.to(dtype).unflatten(0, (len(key_GXD), -1))
    product_RX = (query_GSD @ key_GXD.to(dtype).mT).flatten(0, 1)
    return product_RX if block.power is None else product_RX.abs_()
