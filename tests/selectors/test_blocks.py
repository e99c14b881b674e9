"""Whole tiles: by their exact mass, and by the mean of their keys."""

import numpy as np
import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.selectors.blocks import Blocks
from experiments.selectors.quest import Quest
from tests.selectors.test_selectors import measured
from tests.selectors.test_sinks import order, rows_at

POSITIONS = [5, 29, 61]


@pytest.mark.parametrize("by", ["mass", "mean"])
def test_the_own_tile_comes_first_and_then_whole_tiles_by_their_score(by):
    rows = rows_at(POSITIONS, 64)
    order_RN, exact = order(Blocks(tile=8, by=by), rows)
    key_ND, query_RD = rows.key_ND.double().numpy(), rows.query_RD.double().numpy()
    for r, position in enumerate(POSITIONS):
        own = position // 8
        p = np.exp(exact.logits_RN[r].double().numpy())
        tiles = [slice(8 * tile, 8 * tile + 8) for tile in range(own)]
        scores = [p[tile].sum() if by == "mass" else key_ND[tile].mean(0) @ query_RD[r] for tile in tiles]
        expected = list(range(position, 8 * own - 1, -1))
        for tile in np.argsort([-score for score in scores]):
            expected += range(8 * tile + 7, 8 * tile - 1, -1)
        assert order_RN[r, : position + 1].tolist() == expected


def test_the_exact_mass_drops_least_of_all_whole_tiles():
    rows = rows_at([63] * 8, 64)
    windows = configure("windows/rules=[fixed]", "windows.fixed=[16,32,48]").windows.at(64)
    methods = [Blocks(tile=8, by="mass"), Blocks(tile=8, by="mean"), Quest(page=8)]
    best, *others = (of["dropped_mass"] for of in measured(rows, methods, windows)[1])
    for other in others:
        assert (best <= other + 1e-6).all()
        assert float((other - best).max()) > 0.01


@pytest.mark.parametrize("by", ["mass", "mean"])
def test_tiles_of_one_key_are_the_oracle_but_for_the_own_key(by):
    rows = rows_at([63] * 4, 64)
    order_RN, exact = order(Blocks(tile=1, by=by), rows)
    for r in range(4):
        assert order_RN[r].tolist() == [63] + [key for key in exact.order_RN[r].tolist() if key != 63]


def test_what_is_read():
    n, k = torch.tensor([4096.0]), torch.tensor([256.0])
    assert Blocks(tile=64, by="mean").keys_read(n, k, 64).tolist() == [256 + 32]
    assert Blocks(tile=64, by="mass").keys_read(n, k, 64).tolist() == [(4096 + 256) / 2]


@pytest.mark.parametrize("options", [{"tile": 0}, {"by": "max"}])
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(UserError, match=f"selector.{next(iter(options))}"):
        Blocks(**options)
