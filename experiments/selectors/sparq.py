"""SparQ (arXiv 2312.04985): logits from the channels in which the row's query is largest.

Shape letters besides those of `experiments.rows`: C channels of the query that are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.ranked import as_logits, products, ranked

if TYPE_CHECKING:
    from torch import Tensor

MOST_CHANNELS = 65_536


@dataclass
class SparQ:
    """Keep the row's own key, then keys by their product with the query in its `channels` largest channels alone.

    It looks at this row's query and at those channels of every key: it reads n keys in part, then k keys, and searches
    in a time of O(n channels). Simplified after SparQ, which adds the mean of the values for what is dropped: here keys
    are chosen and nothing is added. Of fewer channels than asked for all are used, which gives the oracle's order.
    """

    name: str = "sparq"
    channels: int = 16
    traits: ClassVar[Traits] = Traits(looks_at_query=True, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.channels", self.channels, least=1, most=MOST_CHANNELS)

    def prepare(self, cache: Cache) -> Answering:
        """Return the order of the products in few channels; there is nothing to prepare."""

        def answer(block: Block) -> Subset:
            size_RD = block.query_RD.abs()
            largest_RC = size_RD.topk(min(self.channels, size_RD.shape[1]), dim=-1).indices

            def score() -> Tensor:
                part_RD = torch.zeros_like(block.query_RD)
                part_RD.scatter_(1, largest_RC, block.query_RD.gather(1, largest_RC))
                return products(part_RD, cache.key_GND[:, : block.num_keys], block)

            def estimate(product_RN: Tensor) -> Tensor:
                """Return the logits at the temperature by which the method allows for the channels left out."""
                share_R1 = size_RD.gather(1, largest_RC).sum(-1, keepdim=True) / size_RD.sum(-1, keepdim=True)
                return as_logits(block, product_RN / share_R1.sqrt().nan_to_num(1.0))  # a query may be 0

            return ranked(block, score, estimate)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and the channels of n keys."""
        return k + n * min(self.channels, head_dim) / (2 * head_dim)
