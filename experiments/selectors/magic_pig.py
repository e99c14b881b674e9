"""MagicPIG (arXiv 2410.16179): keys sampled by hash tables, each weighed by how probable it was to be sampled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.measures.exact import ExactRows
from experiments.ranges import MOST_KEYS, check_range
from experiments.rows import Rows
from experiments.selectors import Found, Ranking, Sampled, Search
from experiments.selectors.interleave import recency
from experiments.selectors.random import random_integers

MOST_TABLES = 4096
OWN, FIRST, NEAR, HIT, REST = range(5)  # what a key is kept as, in the order of keeping


@dataclass
class MagicPIG:
    """Keep the first and the nearest keys exactly, then keys that share their hash with the query in two tables.

    A table hashes by the signs of `bits` random projections of the keys, less the mean of those that all rows see: a
    shift changes no softmax. Keys come in the order of the table that hits them for the second time, and those of one
    table at random. A window of k keys thus uses as many tables as it takes, and a key weighs one over the probability
    of two hits in so many. Beyond `tables` the exact window of nearest keys grows instead. The count of tables depends
    on the draw, which biases the weights a little. It looks at this row and one bucket of every table, then reads k
    keys; making the tables takes O(n d bits tables) once, a search O(tables n / 2^bits).
    """

    name: str = "magic_pig"
    bits: int = 10
    tables: int = 150
    sinks: int = 4
    recent: int = 64
    draw: int = 0

    def __post_init__(self) -> None:
        check_range("selector.bits", self.bits, least=1, most=15)
        check_range("selector.tables", self.tables, least=2, most=MOST_TABLES)  # a key is sampled by two tables
        check_range("selector.sinks", self.sinks, least=0, most=MOST_KEYS)
        check_range("selector.recent", self.recent, least=1, most=MOST_KEYS)
        check_range("selector.draw", self.draw, least=0)

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
        planes_DB, device = self._planes(rows.key_ND), rows.key_ND.device
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
            return second_RN.long(), self._chance(normalize(query_RD, dim=-1) @ unit_ND.T)

        return of_block

    def _planes(self, key_XND: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.draw)
        return torch.randn(key_XND.shape[-1], self.tables * self.bits, generator=generator).to(key_XND.device)

    def _chance(self, cosine: Tensor) -> Tensor:
        return (1 - cosine.clamp(-1, 1).acos().double() / math.pi) ** self.bits

    def _codes(self, product_NLB: Tensor) -> Tensor:
        """Return the hash of each row in each table [L, N]."""
        sign_NLB = (product_NLB > 0).view(len(product_NLB), self.tables, self.bits).short()
        place_B = 2 ** torch.arange(self.bits, device=product_NLB.device, dtype=torch.int16)
        return (sign_NLB * place_B).sum(-1, dtype=torch.int16).T.contiguous()

    def _sampled(self, block: Rows, exact: ExactRows, second_RN: Tensor, chance_RN: Tensor) -> Sampled:
        visible_RN = exact.logits_RN.isfinite()
        near_RN = recency(block.keys, block.position_R).long()
        kind_RN, turn_RN = self._turns(near_RN, second_RN)
        shuffled_RN = random_integers(block, self.draw).argsort(dim=-1)
        turn_RN = turn_RN.masked_fill(~visible_RN, torch.iinfo(torch.int64).max)
        order_RN = shuffled_RN.gather(1, turn_RN.gather(1, shuffled_RN).argsort(dim=-1, stable=True))

        def weight(k_R: Tensor) -> Tensor:
            last_R1 = order_RN.gather(1, k_R[:, None] - 1)
            last = kind_RN.gather(1, last_R1), second_RN.gather(1, last_R1), near_RN.gather(1, last_R1)
            weight_RN = self._weights(kind_RN, near_RN, chance_RN, *last)
            return weight_RN.masked_fill((k_R >= exact.n_R)[:, None], 1.0)  # nothing is left to stand for

        return Sampled(order_RN, weight)

    def _turns(self, near_RN: Tensor, second_RN: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each key is kept as, and its turn [R, N]: keys of one table share theirs."""
        keys = near_RN.shape[1]
        first_RN = torch.arange(keys, device=near_RN.device).expand_as(near_RN) < self.sinks
        kind_RN = torch.where(second_RN > self.tables, REST, HIT)
        kind_RN = torch.where(near_RN < self.recent, NEAR, kind_RN)
        kind_RN = torch.where(first_RN, FIRST, kind_RN)
        kind_RN = torch.where(near_RN == 0, OWN, kind_RN)
        within_RN = torch.where(kind_RN == HIT, second_RN, near_RN)
        return kind_RN, kind_RN * (2 * keys + self.tables) + within_RN

    def _weights(
        self, kind: Tensor, near: Tensor, chance: Tensor, last_kind: Tensor, last_second: Tensor, last_near: Tensor
    ) -> Tensor:
        """Return the weight of keys; what the last key kept of each row is [R, 1] says how far the row went."""
        tables = torch.where(last_kind == HIT, last_second, self.tables).double()
        reach = torch.where(last_kind == REST, last_near, -1)
        sampled = 1 - (1 - chance) ** (tables - 1) * (1 - chance + tables * chance)
        return torch.where((kind <= NEAR) | (near <= reach), 1.0, 1 / sampled.clamp(min=1e-12))

    def index(self, key_GND: Tensor) -> Search:
        """Sort the keys of every table into buckets and return the search of keys that two tables hit."""
        planes_DB = self._planes(key_GND)
        groups, keys, _ = key_GND.shape
        key_GND = key_GND.float() - key_GND.float().mean(1, keepdim=True)
        code_GLN = torch.stack([self._codes(key_ND @ planes_DB) for key_ND in key_GND]).long()
        sorted_GLN, order_GLN = code_GLN.sort(dim=-1)
        order_GLN = order_GLN.int()  # kept for every table and layer
        codes_C = torch.arange(2**self.bits + 1, device=key_GND.device)
        start_GLC = torch.searchsorted(sorted_GLN, codes_C.expand(groups, self.tables, -1).contiguous())
        unit_GND = normalize(key_GND, dim=-1)
        near_N = torch.arange(keys - 1, -1, -1, device=key_GND.device)
        shuffle_N = torch.randperm(keys, generator=torch.Generator().manual_seed(self.draw)).to(key_GND.device)

        def second_hits(query_HD: Tensor, group_H: Tensor) -> Tensor:
            """Return the table that hits each key for the second time [H, N], from the queries' own buckets alone."""
            code_HL = self._codes(query_HD @ planes_DB).T.long()
            table_L = torch.arange(self.tables, device=key_GND.device)
            start_HL = start_GLC[group_H[:, None], table_L, code_HL]
            count = (start_GLC[group_H[:, None], table_L, code_HL + 1] - start_HL).flatten()
            bucket = torch.arange(len(count), device=key_GND.device).repeat_interleave(count)
            within = torch.arange(len(bucket), device=key_GND.device) - (count.cumsum(0) - count)[bucket]
            head, table = bucket // self.tables, bucket % self.tables
            key = order_GLN[group_H[head], table, start_HL.flatten()[bucket] + within].long()
            place, by_place = (head * keys + key).sort(stable=True)  # the hits of one key stand together, by table
            again = torch.cat([place.new_zeros(1, dtype=torch.bool), place[1:] == place[:-1]])
            second = again.clone()
            second[1:] &= ~again[:-1]
            second_HN = torch.full((len(query_HD), keys), self.tables + 1, device=key_GND.device)
            second_HN.view(-1)[place[second]] = table[by_place[second]] + 1
            return second_HN

        def search(query_HD: Tensor, k: int) -> Found:
            query_HD = query_HD.float()
            heads = len(query_HD)
            group_H = torch.arange(heads, device=key_GND.device) // (heads // groups)
            second_HN = second_hits(query_HD, group_H)
            near_HN = near_N.expand(heads, -1)
            kind_HN, turn_HN = self._turns(near_HN, second_HN)
            key_HK = (turn_HN * keys + shuffle_N).topk(k, largest=False, sorted=True).indices
            unit_HKD = unit_GND[group_H[:, None], key_HK]
            chance_HK = self._chance((unit_HKD @ normalize(query_HD, dim=-1)[..., None])[..., 0])
            kind_HK, near_HK, second_HK = (of.gather(1, key_HK) for of in (kind_HN, near_HN, second_HN))
            last = kind_HK[:, -1:], second_HK[:, -1:], near_HK[:, -1:]
            weight_HK = self._weights(kind_HK, near_HK, chance_HK, *last)
            return Found(key_HK, weight_HK.log().float() if k < keys else torch.zeros_like(weight_HK).float())

        return search

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and one bucket of 4-byte key numbers per table beside 2 d floats of a key with its value."""
        return k + self.tables * (n / 2**self.bits) / (2 * head_dim)
