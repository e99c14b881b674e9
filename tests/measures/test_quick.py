"""The quick path against the reference path: |difference| <= 1e-5 |x| + 1e-8 on every measure, and exact k."""

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.kernels.quick_rows import QuickRows
from experiments.kernels.scratch import Scratch
from experiments.reference.exact import ExactRows
from experiments.tables.rows import EPSILONS, ETAS

KINDS = ["normal", "uniform", "ties", "one_hot", "frozen", "masked", "sliding"]


def logits_of(kind, rows, keys, generator):
    normal_RN = 2 * torch.randn(rows, keys, generator=generator)
    key_N, last_R1 = torch.arange(keys), torch.arange(rows)[:, None] % keys
    return {
        "normal": normal_RN,
        "uniform": torch.zeros(rows, keys),
        "ties": torch.randint(-3, 3, (rows, keys), generator=generator).float(),
        "one_hot": torch.where(key_N == keys // 2, 80.0, -80.0).repeat(rows, 1),
        "frozen": 10 * normal_RN,
        "masked": normal_RN.masked_fill(key_N > last_R1, -torch.inf),
        "sliding": normal_RN.masked_fill((key_N > last_R1) | (key_N < last_R1 - 5), -torch.inf),
    }[kind]


def assert_same(logits_RN, value_NV, k_RW=None):
    quick, exact = QuickRows.from_logits(logits_RN, Scratch()), ExactRows.from_logits(logits_RN)
    expected, found = exact.statistics(), quick.statistics()
    for name in expected:
        torch.testing.assert_close(found[name].double(), expected[name].double(), rtol=1e-5, atol=1e-8, msg=name)
    for eta in (*ETAS, 0.3, 1e-4):
        assert torch.equal(quick.k_min(eta), exact.k_min(eta)), eta
    for epsilon in (*EPSILONS, 0.25, 1e-5):
        assert torch.equal(quick.count_above(epsilon), exact.count_above(epsilon)), epsilon
    if k_RW is None:
        grid_W = torch.tensor([1, 2, 3, 5, 8, 13, 40, 100, 400, 900, 10**6, 3, 1])
        k_RW = torch.cat([grid_W.expand(len(logits_RN), -1), exact.k_min(0.1)[:, None]], dim=1)
    k_RW = k_RW.minimum(exact.n_R[:, None])
    expected = exact.measure_top_k(value_NV, k_RW)
    for name, found_RW in quick.measure_top_k(value_NV, k_RW).items():
        torch.testing.assert_close(
            found_RW, expected[name], rtol=1e-5, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("keys", [1, 2, 3, 63, 900, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_both_paths_agree(kind, keys):
    generator = torch.manual_seed(keys)
    assert_same(logits_of(kind, 19, keys, generator), torch.randn(keys, 8, generator=generator))


@settings(max_examples=50, deadline=None)
@given(logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=60), data=st.data())
def test_both_paths_agree_on_any_row(logits, data):
    n = len(logits)
    k = data.draw(st.lists(st.integers(1, n), min_size=1, max_size=6))
    values = torch.randn(n, 8, generator=torch.manual_seed(n))
    assert_same(torch.tensor([logits]), values, torch.tensor([k]))


def test_a_mean_near_zero_keeps_its_digits():
    assert_same(torch.tensor([[1.75, 1.75, 1.7069520950317383, 17.75, -23.0]]), torch.ones(5, 8))


def test_long_rows_agree():
    generator = torch.manual_seed(0)
    assert_same(1.5 * torch.randn(3, 200_000, generator=generator), torch.randn(200_000, 8, generator=generator))


@pytest.mark.parametrize("width", [8, 64, 80, 128])
def test_any_head_dimension(width):
    generator = torch.manual_seed(width)
    assert_same(2 * torch.randn(5, 300, generator=generator), torch.randn(300, width, generator=generator))


def test_rows_and_threads_share_nothing():
    generator = torch.manual_seed(0)
    logits_RN, value_NV = 2 * torch.randn(37, 500, generator=generator), torch.randn(500, 8, generator=generator)
    k_RW = torch.tensor([[1, 20, 300]] * 37)
    whole = QuickRows.from_logits(logits_RN, Scratch()).measure_top_k(value_NV, k_RW)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for start, stop in ((0, 1), (1, 18), (18, 37)):
            part = QuickRows.from_logits(logits_RN[start:stop], Scratch()).measure_top_k(value_NV, k_RW[start:stop])
            assert numba.get_num_threads() == 1
            for name, found in part.items():
                np.testing.assert_allclose(found, whole[name][start:stop], rtol=1e-6)
    finally:
        torch.set_num_threads(threads)
