"""The oracle keeps the k most probable keys: the least dropped mass that any k keys can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Kept, TopK
from experiments.cache import Block, Cache
from experiments.selectors import Answering, Traits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Oracle:
    """Keep the most probable keys; ties go to the lower key index.

    It looks at this row's exact logits, the only one that may: it reads n keys and k values, in a time of O(n d).
    """

    name: str = "oracle"
    traits: ClassVar[Traits] = Traits(looks_at_query=True, weighs=True)
    version: ClassVar[int] = 1

    def prepare(self, cache: Cache) -> Answering:
        """Return a search that scores every key; there is nothing to prepare."""

        def answer(block: Block) -> TopK:
            def first(k: int) -> Kept:
                return Kept(block.logits(cache).topk(k, sorted=True).indices)

            return TopK(first)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return all keys, and the values of those kept."""
        return (n + k) / 2
