"""KeyDiff and norms of keys, each against a plain reference."""

from dataclasses import replace

import numpy as np
import torch

from experiments.selectors.keydiff import KeyDiff
from experiments.selectors.knorm import KNorm
from tests.selectors.test_part_of_channels import own_first
from tests.selectors.test_sinks import order, rows_at


def test_keydiff_keeps_keys_far_from_the_mean_direction_of_those_that_the_row_sees():
    rows = rows_at([20, 63], 64)
    order_RN, _ = order(KeyDiff(), rows)
    for r, position in enumerate([20, 63]):
        seen = rows.key_ND[: position + 1].double().numpy()
        unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
        cosine = unit @ unit.mean(0) / np.linalg.norm(unit.mean(0))
        assert order_RN[r, : position + 1].tolist() == own_first(-cosine, position)


def test_knorm_keeps_the_shortest_keys():
    rows = rows_at([20, 63], 64)
    order_RN, _ = order(KNorm(), rows)
    for r, position in enumerate([20, 63]):
        norm = np.linalg.norm(rows.key_ND[: position + 1].double().numpy(), axis=1)
        assert order_RN[r, : position + 1].tolist() == own_first(-norm, position)


def test_neither_looks_at_the_query():
    rows = rows_at([20, 63], 64)
    for selector in (KeyDiff(), KNorm()):
        assert not selector.traits.looks_at_query
        other = replace(rows, query_RD=torch.randn(2, 4))
        assert order(selector, rows)[0].tolist() == order(selector, other)[0].tolist()
