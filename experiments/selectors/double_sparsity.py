"""Double Sparsity (arXiv 2408.07092): logits from a few channels that are fixed beforehand by calibration.

Shape letters besides those of `experiments.rows`: C channels that are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.earlier import CHUNK
from experiments.selectors.ranked import as_logits, products, ranked

if TYPE_CHECKING:
    from torch import Tensor

MOST_CHANNELS = 65_536


@dataclass
class DoubleSparsity:
    """Keep the row's own key, then keys by their product with the query in `channels` fixed channels alone.

    A KV head's channels are those with the largest mean of |q_c k_c| over the prompt's queries, of all query heads that
    share it, and the prompt's keys. They are frozen at the prompt's end; newer keys are known by the same channels, and
    chosen like the others: none is kept for being new. It looks at this row's query and at those channels of every key:
    it reads n keys in part, then k keys, and searches in a time of O(n channels) after O(n d) once. The method
    calibrates on another text, once for a model; here the prompt is the text, which suits it at least as well. Of fewer
    channels than asked for all are used, which gives the oracle's order.
    """

    name: str = "double_sparsity"
    channels: int = 16
    traits: ClassVar[Traits] = Traits(frozen=True, looks_back=True, looks_at_query=True, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.channels", self.channels, least=1, most=MOST_CHANNELS)

    def prepare(self, cache: Cache) -> Answering:
        """Choose the channels of each KV head; return the order of the products in them."""
        size_GD = torch.stack([sizes_of_channels(cache, kv_head) for kv_head in range(len(cache.key_GND))])
        channels = min(self.channels, size_GD.shape[1])
        largest_GC = size_GD.argsort(dim=-1, descending=True, stable=True)[:, :channels]
        part_GNC = cache.key_GND.gather(2, largest_GC[:, None].expand(-1, cache.num_keys, -1))

        def answer(block: Block) -> Subset:
            def score() -> Tensor:
                of_row_RC = largest_GC.repeat_interleave(len(block) // len(largest_GC), dim=0)
                return products(block.query_RD.gather(1, of_row_RC), part_GNC[:, : block.num_keys], block)

            return ranked(block, score, partial(as_logits, block))

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and the channels of n keys."""
        return k + n * min(self.channels, head_dim) / (2 * head_dim)


def sizes_of_channels(cache: Cache, kv_head: int) -> Tensor:
    """Return the sum of |q_c k_c| over the queries and keys of the prompt [D], float64; 0 without a prompt."""
    of_keys_D = cache.key_GND[kv_head, : cache.prompt].abs().sum(0, dtype=torch.float64)
    of_queries_D = torch.zeros_like(of_keys_D)
    for start in range(0, cache.prompt, CHUNK):
        query_STD = cache.earlier_queries(kv_head, start, min(start + CHUNK, cache.prompt))
        of_queries_D += query_STD.abs().sum((0, 1), dtype=torch.float64)
    return of_queries_D * of_keys_D
