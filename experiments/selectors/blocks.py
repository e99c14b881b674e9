"""Whole tiles of keys, as block-sparse kernels read them: by their exact mass, or by their mean key.

Shape letters besides those of `experiments.rows`: P tiles of keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.ranked import as_logits, products
from experiments.selectors.tiles import tiles_of, whole_tiles

if TYPE_CHECKING:
    from torch import Tensor

MASS, MEAN = SCORES = ("mass", "mean")
MOST_TILE = 65_536


@dataclass
class Blocks:
    """Keep the row's own tile, nearest key first, then whole tiles of `tile` neighbouring keys.

    With `by=mass` tiles come in the order of their exact mass in this row: the best that a choice of whole tiles can
    do, which reads n keys and searches in a time of O(n d), like the oracle. With `by=mean` they come in the order of
    the query's product with the mean of their keys (as block-sparse methods pool: MoBA, arXiv 2502.13189): it reads a
    mean key per tile, and searches in a time of O(n d / tile). Both look at this row's query, and then read k keys.
    Only tiles that lie wholly before the row's own are scored, so no row sees a later key. Where k ends within a tile,
    its latest keys are kept. Kernels choose tiles for a tile of rows; here each row has its own.
    """

    name: str = "blocks"
    tile: int = 64
    by: str = MEAN
    traits: ClassVar[Traits] = Traits(looks_at_query=True, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.tile", self.tile, least=1, most=MOST_TILE)
        if self.by not in SCORES:
            raise UserError(f"selector.by={self.by}: choose {' or '.join(SCORES)}")

    def prepare(self, cache: Cache) -> Answering:
        """Pool the keys of every tile if they go by their means; return the order of the tiles."""
        mean_GPD = self._means(cache.key_GND) if self.by == MEAN else None

        def answer(block: Block) -> Subset:
            def score() -> Tensor:
                if mean_GPD is not None:
                    return products(block.query_RD, mean_GPD, block)
                logits_RN = block.logits(cache)
                nothing = torch.full_like(logits_RN[:, :1], -torch.inf)
                return tiles_of(logits_RN, self.tile, dim=1, fill=nothing).logsumexp(-1)

            def estimate(score_RP: Tensor) -> Tensor:
                """Return an even share of a tile's mass, or the logit of its mean key."""
                return score_RP - math.log(self.tile) if self.by == MASS else as_logits(block, score_RP)

            return whole_tiles(block, self.tile, score, estimate)

        return answer

    def _means(self, key_GND: Tensor) -> Tensor:
        """Return the mean key of every tile [G, P, D]; the last one's is not used unless it is whole."""
        dtype = torch.promote_types(key_GND.dtype, torch.float32)
        return tiles_of(key_GND, self.tile, dim=1, fill=key_GND[:, -1:]).mean(2, dtype=dtype)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return all keys and the values of those kept; or k keys, and the mean key of each tile."""
        return (n + k) / 2 if self.by == MASS else k + n / (2 * self.tile)
