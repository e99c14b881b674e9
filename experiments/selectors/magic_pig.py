"""MagicPIG (arXiv 2410.16179): keys sampled by hash tables, each weighed by how probable it was to be sampled.

Shape letters besides those of `experiments.rows`: B bits of a code, C codes, L hash tables, K keys that a row keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Kept, Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import MOST_KEYS, check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.interleave import recency
from experiments.selectors.random import random_integers

if TYPE_CHECKING:
    from torch import Tensor

MOST_TABLES = 4096
HITS = 2**22  # of rows and tables that are held at once
RANDOM_BITS = 36  # of a turn; the rest tells kinds, tables and distances apart up to 2^23 keys
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
    traits: ClassVar[Traits] = Traits(frozen=True, looks_at_query=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.bits", self.bits, least=1, most=15)
        check_range("selector.tables", self.tables, least=2, most=MOST_TABLES)  # a key is sampled by two tables
        check_range("selector.sinks", self.sinks, least=0, most=MOST_KEYS)
        check_range("selector.recent", self.recent, least=1, most=MOST_KEYS)
        check_range("selector.draw", self.draw, least=0)

    def prepare(self, cache: Cache) -> Answering:
        """Sort the keys of every table into buckets; return the order of hits, and the search of the first ones."""
        tables = Tables(cache, self.bits, self.tables, self.draw)

        def answer(block: Block) -> Subset:
            second_RN = tables.second_hits(block)
            near_RN = recency(block.num_keys, block.position_R).long()
            kind_RN, turn_RN = self._turns(block, near_RN, second_RN)

            def weights(kind: Tensor, near: Tensor, chance: Tensor, k_R: Tensor, last_R1: Tensor) -> Tensor:
                """Return the weights of some keys; how far a row went says its last key."""
                last = kind_RN.gather(1, last_R1), second_RN.gather(1, last_R1), near_RN.gather(1, last_R1)
                weight = self._weights(kind, near, chance, *last)
                return weight.masked_fill((k_R >= block.n_R)[:, None], 1.0)  # nothing is left to stand for

            @lru_cache(maxsize=1)
            def order() -> Tensor:
                return turn_RN.argsort(dim=-1, stable=True)

            @lru_cache(maxsize=1)
            def chances() -> Tensor:
                return tables.chances(block)

            def weight(k_R: Tensor) -> Tensor:
                last_R1 = order().gather(1, k_R[:, None] - 1)
                return weights(kind_RN, near_RN, chances(), k_R, last_R1)

            def first(k: int) -> Kept:
                key_RK = turn_RN.topk(k, largest=False, sorted=True).indices
                kind_RK, near_RK = kind_RN.gather(1, key_RK), near_RN.gather(1, key_RK)
                k_R = torch.full((len(block),), k, device=key_RK.device)
                weight_RK = weights(kind_RK, near_RK, tables.chances(block, key_RK), k_R, key_RK[:, -1:])
                return Kept(key_RK, weight_RK.log().float())

            return Subset(order, weight, first)

        return answer

    def _turns(self, block: Block, near_RN: Tensor, second_RN: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each key is kept as, and its turn [R, N]; keys of one table take random turns."""
        first_RN = torch.arange(block.num_keys, device=near_RN.device).expand_as(near_RN) < self.sinks
        kind_RN = torch.where(second_RN > self.tables, REST, HIT)
        kind_RN = torch.where(near_RN < self.recent, NEAR, kind_RN)
        kind_RN = torch.where(first_RN, FIRST, kind_RN)
        kind_RN = torch.where(near_RN == 0, OWN, kind_RN)
        within_RN = torch.where(kind_RN == HIT, second_RN, near_RN)
        turn_RN = kind_RN * (2 * block.num_keys + self.tables) + within_RN
        random_RN = random_integers(block, self.draw) >> (64 - RANDOM_BITS)
        turn_RN = (turn_RN << RANDOM_BITS) + random_RN + 2 ** (RANDOM_BITS - 1)
        return kind_RN, turn_RN.masked_fill_(~block.visible_RN, torch.iinfo(torch.int64).max)

    def _weights(
        self, kind: Tensor, near: Tensor, chance: Tensor, last_kind: Tensor, last_second: Tensor, last_near: Tensor
    ) -> Tensor:
        """Return the weight of keys; what the last key kept of each row is [R, 1] says how far the row went."""
        tables = torch.where(last_kind == HIT, last_second, self.tables).double()
        reach = torch.where(last_kind == REST, last_near, -1)
        sampled = 1 - (1 - chance) ** (tables - 1) * (1 - chance + tables * chance)
        return torch.where((kind <= NEAR) | (near <= reach), 1.0, 1 / sampled.clamp(min=1e-12))

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and one bucket of 4-byte key numbers per table beside 2 d floats of a key with its value."""
        return k + self.tables * (n / 2**self.bits) / (2 * head_dim)


class Tables:
    """Hash tables of the keys of each KV head, less the mean of those that all rows see.

    Shape letters: L tables, B bits, C hashes.
    """

    def __init__(self, cache: Cache, bits: int, tables: int, draw: int) -> None:
        key_GND = cache.key_GND.float()
        if bool(cache.common_N.any()):  # rows of a sliding window may have no key in common
            key_GND = key_GND - key_GND[:, cache.common_N].mean(1, keepdim=True)
        device, self.num_keys = key_GND.device, key_GND.shape[1]
        self._bits, self._tables = bits, tables
        generator = torch.Generator().manual_seed(draw)
        self._plane_DB = torch.randn(key_GND.shape[-1], tables * bits, generator=generator).to(device)
        code_GLN = torch.stack([self._codes(key_ND) for key_ND in key_GND])
        sorted_GLN, order_GLN = code_GLN.sort(dim=-1, stable=True)
        self._order_GLN = order_GLN.int()  # kept for every table and layer
        code_C = torch.arange(2**bits + 1, device=device, dtype=torch.int32)
        bounds_GLC = code_C.expand(*code_GLN.shape[:2], -1).contiguous()
        self._start_GLC = torch.searchsorted(sorted_GLN, bounds_GLC)
        self._unit_GND = torch.nn.functional.normalize(key_GND, dim=-1)

    def second_hits(self, block: Block) -> Tensor:
        """Return the table, counted from 1, that hits each key for the second time; one more than there are if none.

        From the queries' own buckets alone, [R, N].
        """
        code_RL = self._codes(block.query_RD.float()).T.long()
        kv_head_R = self._kv_heads(block)
        table_L = torch.arange(self._tables, device=code_RL.device)
        start_RL = self._start_GLC[kv_head_R[:, None], table_L, code_RL]
        count_RL = self._start_GLC[kv_head_R[:, None], table_L, code_RL + 1] - start_RL
        second_RN = torch.full((len(block), self.num_keys), self._tables + 1, device=code_RL.device)
        together = max(1, HITS // max(1, int(count_RL.sum(1).max())))  # rows whose hits are held at once
        for rows in torch.arange(len(block), device=code_RL.device).split(together):
            self._mark(second_RN, rows, kv_head_R, start_RL, count_RL)
        return second_RN[:, : block.num_keys]

    def _mark(self, second_RN: Tensor, rows: Tensor, kv_head_R: Tensor, start_RL: Tensor, count_RL: Tensor) -> None:
        """Fill in the second hits of some rows."""
        count = count_RL[rows].flatten()
        bucket = torch.arange(len(count), device=count.device).repeat_interleave(count)
        within = torch.arange(len(bucket), device=count.device) - (count.cumsum(0) - count)[bucket]
        row, table = rows[bucket // self._tables], bucket % self._tables
        key = self._order_GLN[kv_head_R[row], table, start_RL[rows].flatten()[bucket] + within].long()
        key_of_row, by_key = (row * self.num_keys + key).sort(stable=True)  # hits of one key side by side, by table
        again = torch.zeros_like(key_of_row, dtype=torch.bool)
        again[1:] = key_of_row[1:] == key_of_row[:-1]
        second = again.clone()
        second[1:] &= ~again[:-1]
        second_RN.view(-1)[key_of_row[second]] = table[by_key[second]] + 1

    def chances(self, block: Block, key_RK: Tensor | None = None) -> Tensor:
        """Return the chance of a hit in any one table, (1 - angle / pi)^bits, of some keys [R, K] or of all [R, N]."""
        unit_RD = torch.nn.functional.normalize(block.query_RD.float(), dim=-1)
        if key_RK is None:
            unit_GSD = unit_RD.unflatten(0, (len(self._unit_GND), -1))
            cosine = (unit_GSD @ self._unit_GND[:, : block.num_keys].mT).flatten(0, 1)
        else:
            unit_RKD = self._unit_GND[self._kv_heads(block)[:, None], key_RK]
            cosine = (unit_RKD @ unit_RD[..., None])[..., 0]
        return (1 - cosine.clamp(-1, 1).acos().double() / math.pi) ** self._bits

    def _kv_heads(self, block: Block) -> Tensor:
        """Return the KV head of each row [R]."""
        shared = len(block) // len(self._unit_GND)
        return torch.arange(len(block), device=self._unit_GND.device) // shared

    def _codes(self, vector_XD: Tensor) -> Tensor:
        """Return the hash of each vector in each table [L, X]."""
        sign_XLB = (vector_XD @ self._plane_DB > 0).view(len(vector_XD), self._tables, self._bits)
        power_B = 2 ** torch.arange(self._bits, device=vector_XD.device, dtype=torch.int16)
        return (sign_XLB.short() * power_B).sum(-1, dtype=torch.int16).int().T.contiguous()
