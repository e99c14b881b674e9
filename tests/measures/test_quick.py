"""The quick path against the reference path: |difference| <= 1e-5 |x| + 1e-8 on every measure, and exact k."""

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.kernels.quick_rows import QuickRows, measure_top_k
from experiments.kernels.scratch import Scratch
from experiments.reference.exact import ExactRows
from experiments.tables.rows import EPSILONS, ETAS
from experiments.windows import Sizes

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


MORE_ETAS, MORE_EPSILONS = (0.3, 1e-4), (0.25, 1e-5)


def assert_same(logits_RN, value_NV, k_RW=None, sink_R=None):
    """Hold the two paths together: facts of the rows, and windows given, of tolerances and of thresholds."""
    etas, epsilons = (*ETAS, *MORE_ETAS), (*EPSILONS, *MORE_EPSILONS)
    exact = ExactRows.from_logits(logits_RN, sink_R)
    facts = QuickRows.from_logits(logits_RN, Scratch(), etas, epsilons, sink_R)
    for eta in etas:
        assert torch.equal(facts.k_min(eta), exact.k_min(eta)), eta
    for epsilon in epsilons:
        assert torch.equal(facts.count_above(epsilon), exact.count_above(epsilon)), epsilon
    if k_RW is None:
        k_RW = torch.tensor([1, 2, 3, 5, 8, 13, 40, 100, 400, 900, 10**6, 3, 1]).repeat(len(logits_RN), 1)
    k_RW, given = k_RW.minimum(exact.n_R[:, None]), k_RW.shape[1]
    more = dict(enumerate(MORE_ETAS, given)), dict(enumerate(MORE_EPSILONS, given + len(MORE_ETAS)))
    sizes = Sizes(torch.cat([k_RW, torch.zeros(len(k_RW), 4, dtype=torch.int64)], dim=1), *more)
    statistics, kept_RW, measures = measure_top_k(logits_RN, value_NV, sizes, Scratch(), sink_R)
    assert torch.equal(kept_RW, sizes.of(exact))
    for result, expected in ((statistics, exact.statistics()), (measures, exact.measure_top_k(value_NV, kept_RW))):
        assert result.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(
                result[name].double(),
                expected[name].double(),
                rtol=1e-5,
                atol=1e-8,
                equal_nan=True,
                msg=lambda message, name=name: f"{name}: {message}",
            )


@pytest.mark.parametrize("keys", [1, 2, 3, 63, 900, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_both_paths_agree(kind, keys):
    generator = torch.manual_seed(keys)
    assert_same(logits_of(kind, 19, keys, generator), torch.randn(keys, 8, generator=generator))


@pytest.mark.parametrize("keys", [1, 3, 63, 900])
@pytest.mark.parametrize("kind", KINDS)
def test_both_paths_agree_beside_a_learned_sink(kind, keys):
    generator = torch.manual_seed(keys)
    logits_RN = logits_of(kind, 19, keys, generator)
    sink_R = torch.tensor([-1e4, -3.0, 0.0, 2.0, 30.0]).repeat(4)[:19] + logits_RN.amax(-1)
    assert_same(logits_RN, torch.randn(keys, 8, generator=generator), sink_R=sink_R)


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
    logits_RN, value_NV = 2 * torch.randn(37, 5000, generator=generator), torch.randn(5000, 8, generator=generator)
    sizes = Sizes(torch.tensor([[1, 20, 300, 0]] * 37), {3: 0.1}, {})
    _, whole_RW, whole = measure_top_k(logits_RN, value_NV, sizes, Scratch())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for start, stop in ((0, 1), (1, 18), (18, 37)):
            part = measure_top_k(logits_RN[start:stop], value_NV, sizes.rows(start, stop), Scratch())
            assert numba.get_num_threads() == 1
            assert torch.equal(part[1], whole_RW[start:stop])
            for name, result in part[2].items():
                assert torch.equal(result, whole[name][start:stop]), name
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("keys", "tile"), [(5, 1), (31, 4), (700, 64)])
def test_tiles_of_any_size_add_up_alike(monkeypatch, keys, tile):
    monkeypatch.setattr("experiments.kernels.windows.LARGEST_VALUES", 0)
    monkeypatch.setattr("experiments.kernels.windows.TILE_BYTES", tile * 80 * 4)
    generator = torch.manual_seed(keys)
    assert_same(logits_of("ties", 11, keys, generator), torch.randn(keys, 80, generator=generator))
