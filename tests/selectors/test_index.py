"""The search of a decode step finds the keys that the ranking of the same row keeps, in its order."""

from dataclasses import replace

import pytest
import torch

from experiments.measures.exact import ExactRows
from experiments.selectors import each
from experiments.selectors.magic_pig import MagicPIG
from tests.selectors.test_selectors import NAMES, selector
from tests.selectors.test_sinks import rows_at

GROUPS, SHARED, KEYS, DIMS = 2, 3, 203, 16
INDEXED = [name for name in NAMES if hasattr(selector(name), "index")]


def cache(seed=0):
    """Return queries of heads that share KV heads, and the keys of a cache."""
    generator = torch.manual_seed(seed)
    key_GND = torch.randn(GROUPS, KEYS, DIMS, generator=generator) + torch.randn(GROUPS, 1, DIMS, generator=generator)
    return 1.5 * torch.randn(GROUPS * SHARED, DIMS, generator=generator), key_GND


def ranked(part, query_D, key_ND):
    """Return the order, or the sample, that the ranking gives for the last row."""
    row = replace(rows_at([KEYS - 1], KEYS), query_RD=query_D[None], key_ND=key_ND, value_NV=key_ND, scale=DIMS**-0.5)
    exact = ExactRows.from_logits(row.logits())
    ranking = part.ranking(row)
    return exact.order_RN if ranking is None else ranking(row, exact)


@pytest.mark.parametrize("name", [name for name in INDEXED if name != "magic_pig"])
@pytest.mark.parametrize("k", [1, 5, 16, 17, 100, KEYS])
def test_the_search_finds_what_the_ranking_keeps(name, k):
    query_HD, key_GND = cache()
    found = selector(name).index(key_GND)(query_HD, k)
    assert found.log_weight_HK is None
    for head, query_D in enumerate(query_HD):
        expected = ranked(selector(name), query_D, key_GND[head // SHARED])[0, :k]
        assert found.key_HK[head].tolist() == expected.tolist()


@pytest.mark.parametrize("k", [1, 12, 40, 90, KEYS])
def test_magic_pigs_tables_find_what_comparing_all_hashes_does(k):
    part = MagicPIG(bits=4, tables=24, sinks=2, recent=8)
    query_HD, key_GND = cache(1)
    found = part.index(key_GND)(query_HD, k)
    for head, query_D in enumerate(query_HD):
        key_ND = key_GND[head // SHARED]
        sample = ranked(part, query_D, key_ND)
        row = replace(rows_at([KEYS - 1], KEYS), query_RD=query_D[None], key_ND=key_ND)
        second_N = part.hits(row)(row)[0][0]
        # Keys of one table come at random, so that two draws agree on the tables, not on the keys.
        kept, expected = found.key_HK[head], sample.order_RN[0, :k]
        assert len(set(kept.tolist())) == k
        assert sorted(second_N[kept].tolist()) == sorted(second_N[expected].tolist())
        certain = sample.weight(torch.tensor([k]))[0]
        torch.testing.assert_close(found.log_weight_HK[head].exp().double(), certain[kept], rtol=1e-4, atol=1e-5)


def test_the_set_indexed_is_all_that_can_be_timed():
    named = {part.name for part in each(selector("indexed"))}
    assert named | {"sliding"} == set(INDEXED)  # a sliding window is timed as sinks are
