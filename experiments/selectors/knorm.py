"""Keys of small norm (arXiv 2406.11430), which in trained models are those that queries attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.selectors import Answering, Traits
from experiments.selectors.ranked import ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class KNorm:
    """Keep the row's own key, then keys by rising norm.

    It looks at keys alone, in a time of O(d) per key, and reads k keys. Keys have one norm before and after rotary
    embedding, so that the order of two keys never changes. The paper leaves out its first two layers, which it keeps
    whole; here every layer is treated alike.
    """

    name: str = "knorm"
    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1

    def prepare(self, cache: Cache) -> Answering:
        """Return the order of the norms."""
        norm_GN = cache.key_GND.double().norm(dim=-1)

        def answer(block: Block) -> Subset:
            def score() -> Tensor:
                return -norm_GN[:, : block.num_keys].repeat_interleave(len(block) // len(norm_GN), dim=0)

            return ranked(block, score)

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: what is dropped is known without the query."""
        return k
