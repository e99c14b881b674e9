"""MagicPIG (arXiv 2410.16179): keys sampled by hash tables, each weighed by how probable it was to be sampled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.errors import UserError
from experiments.measures.exact import ExactRows
from experiments.rows import Rows
from experiments.selectors import Ranking, Sampled
from experiments.selectors.interleave import recency
from experiments.selectors.random import random_integers


@dataclass
class MagicPIG:
    """Keep the first and the nearest keys exactly, then keys that share their hash with the query in two tables.

    A table hashes by the signs of `bits` random projections of the keys, less the mean of those that all rows see: a
    shift changes no softmax. Keys come in the order of the table that hits them for the second time, and those of one
    table at random. A window of k keys thus uses as many tables as it takes, and a key weighs one over the probability
    of two hits in so many. Beyond `tables` the exact window of nearest keys grows instead. The count of tables depends
    on the draw, which biases the weights a little. It looks at this row and the tables, then reads k keys.
    """

    name: str = "magic_pig"
    bits: int = 10
    tables: int = 150
    sinks: int = 4
    recent: int = 64
    draw: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 15:
            raise UserError(f"selector.bits={self.bits}: give a number from 1 to 15")
        if self.tables < 2:
            raise UserError(f"selector.tables={self.tables}: a key is sampled by two tables, give at least 2")
        if self.sinks < 0 or self.recent < 1:
            raise UserError("selector.sinks and recent: give numbers of keys >= 0 and >= 1")

    def ranking(self, rows: Rows) -> Ranking:
        """Hash this head's keys in every table and return the order of hits, block by block."""
        hits = self.hits(rows)

        def order(block: Rows, exact: ExactRows) -> Sampled:
            return self._sampled(block, exact, *hits(block))

        return order

    def hits(self, rows: Rows) -> Callable[[Rows], tuple[Tensor, Tensor]]:
        """Hash this head's keys; return what maps a block to the tables of second hits and the chances of one.

        The table [R, N] is counted from 1 and is `tables` + 1 where there is none; the chance [R, N] is that of a hit
        in any one table, (1 - angle / pi)^bits.
        """
        generator = torch.Generator().manual_seed(self.draw)
        dims, device = rows.key_ND.shape[1], rows.key_ND.device
        planes_DB = torch.randn(dims, self.tables * self.bits, generator=generator).to(device)
        seen_by_all_N = rows.visible().all(0)
        key_ND = rows.key_ND.float() - rows.key_ND[seen_by_all_N].float().mean(0)
        code_LN = self._codes(key_ND @ planes_DB)
        unit_ND = normalize(key_ND, dim=-1)

        def of_block(block: Rows) -> tuple[Tensor, Tensor]:
            query_RD = block.query_RD.float()
            code_LR = self._codes(query_RD @ planes_DB)
            count_RN = torch.zeros(len(block), block.keys, dtype=torch.int16, device=device)
            second_RN = torch.full_like(count_RN, self.tables + 1)
            for table in range(self.tables):
                hit_RN = code_LR[table][:, None] == code_LN[table]
                count_RN += hit_RN
                second_RN.masked_fill_(hit_RN & (count_RN == 2), table + 1)
            cosine_RN = normalize(query_RD, dim=-1) @ unit_ND.T
            chance_RN = (1 - cosine_RN.clamp(-1, 1).acos().double() / math.pi) ** self.bits
            return second_RN.long(), chance_RN

        return of_block

    def _codes(self, product_NLB: Tensor) -> Tensor:
        """Return the hash of each row in each table [L, N]."""
        sign_NLB = (product_NLB > 0).view(len(product_NLB), self.tables, self.bits).short()
        place_B = 2 ** torch.arange(self.bits, device=product_NLB.device, dtype=torch.int16)
        return (sign_NLB * place_B).sum(-1, dtype=torch.int16).T.contiguous()

    def _sampled(self, block: Rows, exact: ExactRows, second_RN: Tensor, chance_RN: Tensor) -> Sampled:
        keys, device = block.keys, second_RN.device
        visible_RN = exact.logits_RN.isfinite()
        near_RN = recency(keys, block.position_R).long()
        first_RN = torch.arange(keys, device=device).expand_as(near_RN) < self.sinks
        static_RN = first_RN | (near_RN < self.recent)
        unhit_RN = second_RN > self.tables
        # Classes: the own key, the first, the nearest, those hit, the rest by nearness.
        within_RN = torch.where(unhit_RN | static_RN, near_RN, second_RN)
        kind_RN = torch.where(unhit_RN, 4, 3)
        kind_RN = torch.where(near_RN < self.recent, 2, kind_RN)
        kind_RN = torch.where(first_RN, 1, kind_RN)
        kind_RN = torch.where(near_RN == 0, 0, kind_RN)
        shuffled_RN = random_integers(block, self.draw).argsort(dim=-1)
        turn_RN = (kind_RN * (2 * keys + self.tables) + within_RN).masked_fill(
            ~visible_RN, torch.iinfo(torch.int64).max
        )
        order_RN = shuffled_RN.gather(1, turn_RN.gather(1, shuffled_RN).argsort(dim=-1, stable=True))

        def weight(k_R: Tensor) -> Tensor:
            last_R1 = order_RN.gather(1, k_R[:, None] - 1)
            last_kind_R1 = kind_RN.gather(1, last_R1)
            tables_R1 = torch.where(last_kind_R1 == 3, second_RN.gather(1, last_R1), self.tables).double()
            reach_R1 = torch.where(last_kind_R1 == 4, near_RN.gather(1, last_R1), -1)
            missed_RN = (1 - chance_RN) ** (tables_R1 - 1)
            sampled_RN = 1 - missed_RN * (1 - chance_RN + tables_R1 * chance_RN)
            certain_RN = static_RN | (near_RN <= reach_R1)
            return torch.where(certain_RN, 1.0, 1 / sampled_RN.clamp(min=1e-12))

        return Sampled(order_RN, weight)

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and one bucket of 4-byte key numbers per table beside 2 d floats of a key with its value."""
        return k + self.tables * (n / 2**self.bits) / (2 * head_dim)
