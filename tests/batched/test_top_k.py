"""Rows of several KV heads at once against the reference, a head at a time: the same order, k and numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.batched.bags import BAG
from experiments.batched.ranked import ranked
from experiments.batched.top_k import measure_top_k
from experiments.reference.exact import ExactRows
from experiments.reference.subset import measure_subset
from tests.measures.test_quick import KINDS, MORE_EPSILONS, MORE_ETAS, logits_of

HEADS, ROWS = 3, 7
K = [1, 2, 3, 5, 8, 13, 40, 100, 400, 900, 10**6, 3, 1]


def close(result, expected, name):
    torch.testing.assert_close(
        result.double(),
        expected.double(),
        rtol=1e-5,
        atol=1e-8,
        equal_nan=True,
        msg=lambda message: f"{name}: {message}",
    )


def assert_same(logits_MN, value_GNV, k_MW, sink_M=None):
    expected = ExactRows.from_logits(logits_MN, sink_M)
    exact, defined_M = ranked(logits_MN.clone(), sink_M)
    assert defined_M.all()
    assert torch.equal(exact.order_RN, expected.order_RN)
    statistics = exact.statistics()
    for name, values_M in expected.statistics().items():
        if values_M.dtype == torch.int64:
            assert torch.equal(statistics[name], values_M), name
        close(statistics[name], values_M, name)
    for eta in MORE_ETAS:
        assert torch.equal(exact.k_min(eta), expected.k_min(eta))
    for epsilon in MORE_EPSILONS:
        assert torch.equal(exact.count_above(epsilon), expected.count_above(epsilon))
    k_MW = k_MW.minimum(expected.n_R[:, None])
    measures, output_M = measure_top_k(exact, value_GNV, k_MW)
    rows = len(logits_MN) // len(value_GNV)
    for g, value_NV in enumerate(value_GNV):
        own = slice(g * rows, (g + 1) * rows)
        sunk_R = None if sink_M is None else expected.learned_sink_R[own]
        of_head = measure_subset(expected.order_RN[own], expected.probability_RN[own], value_NV, k_MW[own], sunk_R)
        close(output_M[own], of_head["output"], "output")
        for name, values_MW in measures.items():
            close(values_MW[own], of_head[name], name)


@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("keys", [1, 2, 3, 63, 900, 3 * BAG + 5])
@pytest.mark.parametrize("kind", KINDS)
def test_all_heads_at_once_are_the_reference(kind, keys, sink):
    generator = torch.manual_seed(keys)
    logits_MN = torch.cat([logits_of(kind, ROWS, keys, generator) for _ in range(HEADS)])
    sink_M = logits_MN.amax(-1) + torch.tensor([-1e4, -3.0, 0.0, 2.0, 30.0]).repeat(5)[: len(logits_MN)]
    value_GNV = torch.randn(HEADS, keys, 8, generator=generator)
    assert_same(logits_MN, value_GNV, torch.tensor(K).repeat(len(logits_MN), 1), sink_M if sink else None)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_rows_and_windows_are_the_reference(data):
    keys, heads, rows = (data.draw(st.integers(1, most)) for most in (300, 4, 5))
    generator = torch.manual_seed(data.draw(st.integers(0, 2**31)))
    kind, windows = data.draw(st.sampled_from(KINDS)), data.draw(st.integers(0, 40))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    logits_MN = torch.cat([logits_of(kind, rows, keys, generator) for _ in range(heads)]).to(dtype)
    value_GNV = torch.randn(heads, keys, 5, generator=generator).to(data.draw(st.sampled_from([dtype, torch.bfloat16])))
    k_MW = torch.randint(1, keys + 1, (heads * rows, windows), generator=generator)
    assert_same(logits_MN, value_GNV, k_MW)


def test_values_that_lie_side_by_side_are_read_as_they_lie():
    generator = torch.manual_seed(0)
    logits_MN, value_NGV = torch.randn(6, 50, generator=generator), torch.randn(50, 2, 4, generator=generator)
    assert_same(logits_MN, value_NGV.transpose(0, 1), torch.tensor(K).repeat(6, 1))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_rows_without_a_softmax_are_told_and_harm_no_other(bad):
    generator = torch.manual_seed(0)
    logits_MN = torch.randn(4, 600, generator=generator)
    sound, _ = ranked(logits_MN.clone(), None)
    logits_MN[1, 17], logits_MN[2] = bad, -torch.inf
    exact, defined_M = ranked(logits_MN, None)
    assert defined_M.tolist() == [True, False, False, True]
    k_MW = torch.tensor([3, 600]).repeat(4, 1).minimum(exact.n_R[:, None])
    measures, _ = measure_top_k(exact, torch.randn(2, 600, 4, generator=generator), k_MW)
    kept = [0, 3]
    assert torch.equal(exact.order_RN[kept], sound.order_RN[kept])
    assert measures["output_truncated"][kept].isfinite().all()
