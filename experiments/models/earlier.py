"""What a model asked before: the queries of the tokens that it has read, for methods that go by earlier rows.

Shape letters: H query heads, S of them share a KV head, T queries, N keys, D head dimension.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from experiments.cache import Earlier, cap_
from experiments.models.probe import Attention


class EarlierQueries:
    """The queries of every layer, in the order in which they were read, with the masks that they had."""

    def __init__(self) -> None:
        self._passes: dict[int, list[Attention]] = {}
        self._kept: defaultdict[tuple[int, int], dict[str, tuple[int, Tensor]]] = defaultdict(dict)

    def add(self, attention: Attention) -> None:
        """Keep the queries of a layer's pass; those at its positions and later, of a pass forgotten since, go."""
        kept = [_cut(before, attention.first) for before in self._passes.get(attention.layer, [])]
        # keys and values are the cache's: holding these would be holding it twice
        no_keys = attention.key_GND.new_empty(*attention.key_GND.shape[:2], 0)
        kept.append(replace(attention, key_GND=no_keys, value_GNV=no_keys))
        self._passes[attention.layer] = [part for part in kept if part.query_HND.shape[1]]
        for kv_head in range(len(attention.key_GND)):
            of_rows = self._kept[attention.layer, kv_head]
            for name in [name for name, (position, _) in of_rows.items() if position > attention.first]:
                del of_rows[name]

    def before(self, attention: Attention, kv_head: int) -> Earlier:
        """Return what was asked of a KV head, up to the last query of the layer's present pass."""
        passes = list(self._passes[attention.layer])

        def parts(start: int, stop: int) -> Iterator[tuple[Attention, int, int]]:
            for part in passes:
                first, last = max(start, part.first), min(stop, part.first + part.query_HND.shape[1])
                if first < last:
                    yield part, first, last

        def logits(start: int, stop: int) -> Tensor:
            key_ND = attention.key_GND[kv_head, :stop]
            return torch.cat([earlier_logits(*part, key_ND, kv_head) for part in parts(start, stop)], dim=1)

        def queries(start: int, stop: int) -> Tensor:
            return torch.cat([earlier_queries(*part, kv_head) for part in parts(start, stop)], dim=1)

        return Earlier(logits, queries, self._kept[attention.layer, kv_head])


def of_pass(attention: Attention, kv_head: int) -> Earlier:
    """Return what was asked of a KV head within one pass that holds all queries so far."""
    return Earlier(
        lambda start, stop: earlier_logits(attention, start, stop, attention.key_GND[kv_head, :stop], kv_head),
        lambda start, stop: earlier_queries(attention, start, stop, kv_head),
    )


def earlier_queries(attention: Attention, start: int, stop: int, kv_head: int) -> Tensor:
    """Return the queries at positions start..stop-1 of every head of a KV head, times the scale [S, T, D]."""
    shared = attention.query_HND.shape[0] // attention.key_GND.shape[0]
    heads = slice(kv_head * shared, (kv_head + 1) * shared)
    query_STD = attention.query_HND[heads, start - attention.first : stop - attention.first]
    return query_STD.float() * attention.scale


def earlier_logits(attention: Attention, start: int, stop: int, key_ND: Tensor, kv_head: int) -> Tensor:
    """Return the scaled, masked logits of the queries at positions start..stop-1 of every head of a KV head [S, T, N].

    Parameters
    ----------
    key_ND
        The first N keys of that KV head.
    """
    query_STD = earlier_queries(attention, start, stop, kv_head)
    logits_STN = cap_(query_STD @ key_ND.float().T, attention.softcap)
    first_head = kv_head * len(query_STD)
    position_T = torch.arange(start, stop, device=key_ND.device)
    keys = min(len(key_ND), attention.key_GND.shape[1])  # a later key is seen by none of these queries
    for head, logits_TN in enumerate(logits_STN, first_head):
        visible_TN = attention.visible(head, position_T, keys)
        if visible_TN is not None:
            logits_TN[:, :keys].masked_fill_(~visible_TN, -torch.inf)
        logits_TN[:, keys:] = -torch.inf
    return logits_STN


def _cut(attention: Attention, stop: int) -> Attention:
    """Return a pass with its queries before a position alone."""
    if attention.first + attention.query_HND.shape[1] <= stop:
        return attention
    kept = max(stop - attention.first, 0)
    keys = attention.key_GND[:, : attention.first + kept]
    return replace(attention, query_HND=attention.query_HND[:, :kept], key_GND=keys, value_GNV=keys)
