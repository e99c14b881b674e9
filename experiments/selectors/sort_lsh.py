"""sortLSH of HyperAttention (arXiv 2310.05869): keys whose hash stands near the query's, in an order of the hashes.

Shape letters besides those of `experiments.rows`: B bits of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Kept, Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class SortLSH:
    """Keep the row's own key, then keys by the distance of their bucket from the query's, the nearest key first.

    A hash is the signs of `bits` random projections, and buckets stand in Gray order, so that neighbours differ in one
    sign. The method sorts queries too and pairs equal ranks; here a row stands where its own hash does, which needs no
    other row. It looks at this row and the keys' hashes: it reads n hashes of `bits` bits, then k keys; making the
    hashes takes O(n d bits) once, a search O(n).
    """

    name: str = "sort_lsh"
    bits: int = 7
    draw: int = 0
    traits: ClassVar[Traits] = Traits(looks_at_query=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.bits", self.bits, least=1, most=30)
        check_range("selector.draw", self.draw, least=0)

    def prepare(self, cache: Cache) -> Answering:
        """Hash the keys; return the order of their buckets."""
        generator = torch.Generator().manual_seed(self.draw)
        plane_DB = torch.randn(cache.key_GND.shape[-1], self.bits, generator=generator).to(cache.key_GND.device)
        bucket_GN = _buckets(cache.key_GND.float() @ plane_DB)

        def answer(block: Block) -> Subset:
            def turns() -> Tensor:
                bucket_GS1 = _buckets(block.query_RD.float() @ plane_DB).view(len(bucket_GN), -1, 1)
                apart_RN = (bucket_GS1 - bucket_GN[:, None, : block.num_keys]).abs().flatten(0, 1)
                age_RN = (block.position_R[:, None] - torch.arange(block.num_keys, device=apart_RN.device)).abs()
                turn_RN = apart_RN * (2 * block.num_keys) + age_RN
                turn_RN.masked_fill_(~block.visible_RN, torch.iinfo(torch.int64).max)
                return turn_RN.scatter_(1, block.own_R1, -1)

            # keys that come before the row differ in their distance, so that no turns are equal and both give one order
            return Subset.by_turn(
                turns, quick_first=lambda k: Kept(turns().topk(k, largest=False, sorted=True).indices)
            )

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and the bits of n hashes beside 2 d floats of a key with its value."""
        return k + n * self.bits / (64 * head_dim)


def _buckets(product_XB: Tensor) -> Tensor:
    """Return the place of each hash in Gray order: every bit is the parity of the signs up to it."""
    sign_XB = (product_XB > 0).long()
    parity_XB = sign_XB.cumsum(-1) % 2
    power_B = 2 ** torch.arange(product_XB.shape[-1] - 1, -1, -1, device=product_XB.device)
    return (parity_XB * power_B).sum(-1)
