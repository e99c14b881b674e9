"""sortLSH of HyperAttention (arXiv 2310.05869): keys whose hash stands near the query's, in an order of the hashes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.ranges import check_range
from experiments.rows import Rows
from experiments.selectors import Found, Ranking, Search
from experiments.selectors.interleave import own_first, recency


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

    def __post_init__(self) -> None:
        check_range("selector.bits", self.bits, least=1, most=30)
        check_range("selector.draw", self.draw, least=0)

    def ranking(self, rows: Rows) -> Ranking:
        """Hash this head's keys and return the order of buckets, block by block."""
        plane_DB = self._planes(rows.key_ND)
        bucket_N = _buckets(rows.key_ND.float() @ plane_DB)

        def order(block: Rows, exact: ExactRows) -> Tensor:
            bucket_R = _buckets(block.query_RD.float() @ plane_DB)
            apart_RN = (bucket_R[:, None] - bucket_N).abs()
            near_RN = recency(block.keys, block.position_R).long()
            turn_RN = apart_RN * (2 * block.keys) + near_RN
            turn_RN = turn_RN.masked_fill(~exact.logits_RN.isfinite(), torch.iinfo(torch.int64).max)
            return own_first(turn_RN.argsort(dim=-1, stable=True), block.position_R)

        return order

    def _planes(self, key_XND: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.draw)
        return torch.randn(key_XND.shape[-1], self.bits, generator=generator).to(key_XND.device)

    def index(self, key_GND: Tensor) -> Search:
        """Hash all keys and return the search of the nearest buckets."""
        plane_DB = self._planes(key_GND)
        bucket_GN = _buckets(key_GND.float() @ plane_DB)
        keys = key_GND.shape[1]
        age_N = torch.arange(keys - 1, -1, -1, device=key_GND.device)

        def search(query_HD: Tensor, k: int) -> Found:
            bucket_GS = _buckets(query_HD.float() @ plane_DB).view(len(key_GND), -1)
            turn_HN = ((bucket_GS[..., None] - bucket_GN[:, None]).abs() * keys + age_N).flatten(0, 1)
            turn_HN[:, -1] = -1  # the own key
            return Found(turn_HN.topk(k, largest=False, sorted=True).indices)

        return search

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and the bits of n hashes beside 2 d floats of a key with its value."""
        return k + n * self.bits / (64 * head_dim)


def _buckets(product_XB: Tensor) -> Tensor:
    """Return the place of each hash in Gray order: every bit is the parity of the signs up to it."""
    sign_XB = (product_XB > 0).long()
    parity_XB = sign_XB.cumsum(-1) % 2
    place_B = 2 ** torch.arange(product_XB.shape[-1] - 1, -1, -1, device=product_XB.device)
    return (parity_XB * place_B).sum(-1)
