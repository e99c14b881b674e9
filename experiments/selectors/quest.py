"""Quest (arXiv 2406.10774): pages of the cache, by an upper bound on the logits within them.

Shape letters besides those of `experiments.rows`: P pages, L keys of a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.ranked import as_logits
from experiments.selectors.tiles import tiles_of, whole_tiles

if TYPE_CHECKING:
    from torch import Tensor

MOST_PAGE = 65_536


@dataclass
class Quest:
    """Keep the row's own page, nearest key first, then whole pages in the order of their bound.

    A page is known by the smallest and the largest value of each channel of its keys; max(q min, q max), summed over
    channels, is at least every logit of the page. It looks at this row's query and at the pages' bounds: it reads two
    of them, half a key with its value each, per page, then k keys, and searches in a time of O(n d / page). Only pages
    that lie wholly before the row's own are bounded, so no row sees a later key. Where k ends within a page, its
    latest keys are kept.
    """

    name: str = "quest"
    page: int = 16
    traits: ClassVar[Traits] = Traits(looks_at_query=True, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.page", self.page, least=1, most=MOST_PAGE)

    def prepare(self, cache: Cache) -> Answering:
        """Bound the pages of the keys; return their order, and the search of the best ones."""
        low_GPD, high_GPD = self._bounds(cache.key_GND)

        def answer(block: Block) -> Subset:
            query_GSD = block.query_RD.unflatten(0, (len(low_GPD), -1))

            def bounds() -> Tensor:
                return _bounded(query_GSD, low_GPD.to(query_GSD), high_GPD.to(query_GSD)).flatten(0, 1)

            return whole_tiles(block, self.page, bounds, partial(as_logits, block))

        return answer

    def _bounds(self, key_GND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest value of each channel in every page [G, P, D], the last one not whole."""
        paged_GPLD = tiles_of(key_GND, self.page, dim=1, fill=key_GND[:, -1:])
        return paged_GPLD.amin(2), paged_GPLD.amax(2)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and two bounds of each page."""
        return k + n / self.page


def _bounded(query_GSD: Tensor, low_GPD: Tensor, high_GPD: Tensor) -> Tensor:
    """Return the bound of every query's logits within each page [G, S, P]."""
    return query_GSD.clamp(min=0) @ high_GPD.mT + query_GSD.clamp(max=0) @ low_GPD.mT
