"""KeyDiff (arXiv 2504.15364): keys that point elsewhere than the mean key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.selectors import Answering, Traits
from experiments.selectors.ranked import ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class KeyDiff:
    """Keep the row's own key, then keys by rising cosine with the mean direction of those that the row sees.

    It looks at keys alone, after rotary embedding, in a time of O(d) per key, and reads k keys. The method works off a
    prompt in blocks and compares what is left of the cache with the next block; here no key is lost before the row
    comes, so that this is the method at its best.
    """

    name: str = "keydiff"
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def prepare(self, cache: Cache) -> Answering:
        """Return the order of the cosines; the mean direction is each row's own."""
        unit_GND = torch.nn.functional.normalize(cache.key_GND.double(), dim=-1)

        def answer(block: Block) -> Subset:
            def score() -> Tensor:
                seen_GND = unit_GND[:, : block.num_keys]
                visible_GSN = block.visible_RN.unflatten(0, (len(unit_GND), -1)).double()
                return -(visible_GSN @ seen_GND @ seen_GND.mT).flatten(0, 1)  # the mean's length changes no order

            return ranked(block, score)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: what is dropped is known without the query."""
        return k
