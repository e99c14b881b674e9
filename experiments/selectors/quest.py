"""Quest (arXiv 2406.10774): pages of the cache, by an upper bound on the logits within them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.errors import UserError
from experiments.measures.exact import ExactRows
from experiments.rows import Rows
from experiments.selectors import Ranking
from experiments.selectors.interleave import recency


@dataclass
class Quest:
    """Keep the row's own page, nearest key first, then whole pages in the order of their bound.

    A page is known by the smallest and the largest value of each channel of its keys; max(q min, q max), summed over
    channels, is at least every logit of the page. It looks at this row's query and at the pages' bounds: 2 n / page
    keys' worth of reading, then k keys. Only pages that lie wholly before the row's own are bounded, so no row sees a
    later key. Where k ends within a page, its latest keys are kept.
    """

    name: str = "quest"
    page: int = 16

    def __post_init__(self) -> None:
        if self.page < 1:
            raise UserError(f"selector.page={self.page}: give a number of keys >= 1")

    def ranking(self, rows: Rows) -> Ranking:
        """Bound the pages of this head's keys and return the order of pages, block by block."""
        whole_ND = rows.key_ND
        missing = -len(whole_ND) % self.page
        padded_ND = torch.cat([whole_ND, whole_ND[-1:].expand(missing, -1)])
        paged_PLD = padded_ND.reshape(-1, self.page, padded_ND.shape[-1])
        low_PD, high_PD = paged_PLD.amin(1), paged_PLD.amax(1)

        def order(block: Rows, exact: ExactRows) -> Tensor:
            bound_RP = (
                block.query_RD.clamp(min=0) @ high_PD.to(block.query_RD).T
                + block.query_RD.clamp(max=0) @ low_PD.to(block.query_RD).T
            )
            key_N = torch.arange(block.keys, device=block.query_RD.device)
            page_N = key_N // self.page
            own_RN = page_N == block.position_R.clamp(max=block.keys - 1)[:, None] // self.page
            hidden_RN = ~exact.logits_RN.isfinite()
            bound_RN = bound_RP[:, page_N].masked_fill(own_RN, float("inf")).masked_fill(hidden_RN, -float("inf"))
            near_RN = recency(block.keys, block.position_R).masked_fill(hidden_RN, float("inf"))
            by_nearness_RN = near_RN.argsort(dim=-1, stable=True)
            by_bound_RN = bound_RN.gather(1, by_nearness_RN).argsort(dim=-1, descending=True, stable=True)
            return by_nearness_RN.gather(1, by_bound_RN)

        return order

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and two bounds of each page."""
        return k + n / self.page
