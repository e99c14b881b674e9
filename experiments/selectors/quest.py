"""Quest (arXiv 2406.10774): pages of the cache, by an upper bound on the logits within them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.ranges import check_range
from experiments.rows import Rows
from experiments.selectors import Found, Ranking, Search
from experiments.selectors.interleave import recency

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

    def __post_init__(self) -> None:
        check_range("selector.page", self.page, least=1, most=MOST_PAGE)

    def ranking(self, rows: Rows) -> Ranking:
        """Bound the pages of this head's keys and return the order of pages, block by block."""
        low_PD, high_PD = self._bounds(rows.key_ND)

        def order(block: Rows, exact: ExactRows) -> Tensor:
            bound_RP = _bounded(block.query_RD, low_PD.to(block.query_RD), high_PD.to(block.query_RD))
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

    def _bounds(self, key_XND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest value of each channel in every page [..., P, D], the last one not whole."""
        missing = -key_XND.shape[-2] % self.page
        padding = key_XND[..., -1:, :].expand(*key_XND.shape[:-2], missing, key_XND.shape[-1])
        paged_XPLD = torch.cat([key_XND, padding], dim=-2).unflatten(-2, (-1, self.page))
        return paged_XPLD.amin(-2), paged_XPLD.amax(-2)

    def index(self, key_GND: Tensor) -> Search:
        """Bound all pages and return the search of the best ones."""
        low_GPD, high_GPD = self._bounds(key_GND)
        keys = key_GND.shape[1]
        own = (keys - 1) // self.page  # its keys come first, and it is the last page
        own_N = torch.arange(keys - 1, own * self.page - 1, -1, device=key_GND.device)
        within_L = torch.arange(self.page - 1, -1, -1, device=key_GND.device)

        def search(query_HD: Tensor, k: int) -> Found:
            heads = len(query_HD)
            query_GSD = query_HD.view(len(key_GND), -1, query_HD.shape[1])
            bound_HP = _bounded(query_GSD, low_GPD, high_GPD).flatten(0, 1)[:, :own]
            wanted = min(max(-(-(k - len(own_N)) // self.page), 0), own)
            page_HM = bound_HP.topk(wanted, sorted=True).indices
            paged_HK = (page_HM[..., None] * self.page + within_L).flatten(1)
            return Found(torch.cat([own_N.expand(heads, -1), paged_HK], dim=1)[:, :k])

        return search

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and two bounds of each page."""
        return k + n / self.page


def _bounded(query_XRD: Tensor, low_XPD: Tensor, high_XPD: Tensor) -> Tensor:
    """Return the bound of every query's logits within each page [..., R, P]."""
    low_XDP, high_XDP = low_XPD.transpose(-1, -2), high_XPD.transpose(-1, -2)
    return query_XRD.clamp(min=0) @ high_XDP + query_XRD.clamp(max=0) @ low_XDP
