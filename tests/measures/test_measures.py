"""The measures against a float64 brute force, row by row, and against the identities of theory.md section 2."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.reference.exact import ExactRows
from experiments.reference.subset import measure_subset
from tests import brute_force

ABSOLUTE, RELATIVE = 1e-9, 1e-5


def rows_of(kind, n, rng):
    return {
        "random": lambda: rng.normal(size=n) * 3,
        "tied": lambda: rng.integers(-2, 3, size=n).astype(float),
        "one_hot": lambda: np.where(np.arange(n) == n // 2, 80.0, -80.0),
        "uniform": lambda: np.zeros(n),
        "extreme": lambda: rng.choice([-80.0, -79.0, 0.0, 79.0, 80.0], size=n),
        "frozen": lambda: rng.normal(size=n) * 20,
    }[kind]()


def check(logits_RN, values, order_RN, k_RW):
    exact = ExactRows.from_logits(torch.tensor(logits_RN, dtype=torch.float32))
    order_RN = exact.order_RN if order_RN is None else torch.tensor(order_RN)
    ranked_logits = exact.logits_RN.double().gather(1, order_RN)
    probability_RN = torch.softmax(ranked_logits, -1)
    if order_RN is exact.order_RN:
        probability_RN = exact.probability_RN
    measured = measure_subset(order_RN, probability_RN, torch.tensor(values), torch.tensor(k_RW))
    for r, row in enumerate(np.float32(logits_RN).astype(float)):
        for w, k in enumerate(k_RW[r]):
            expected = brute_force.sparse_row(row, values, order_RN[r, :k].tolist())
            for name, values_RW in measured.items():
                found = values_RW[r].item() if name == "output" else values_RW[r, w].item()
                # squared norms cancel down to the values' own rounding, and 1 - tau of the reference has float64's
                floor = ABSOLUTE if "output" not in name else 1e-12
                assert found == pytest.approx(expected[name], rel=RELATIVE, abs=floor), (name, k, row)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 300])
@pytest.mark.parametrize("kind", ["random", "tied", "one_hot", "uniform", "extreme", "frozen"])
@pytest.mark.parametrize("ranking", ["oracle", "shuffled"])
def test_every_measure_agrees_with_brute_force(kind, n, ranking):
    rng = np.random.default_rng(n)
    logits_RN = np.stack([rows_of(kind, n, rng) for _ in range(3)])
    values = rng.normal(size=(n, 5))
    order_RN = None if ranking == "oracle" else np.stack([rng.permutation(n) for _ in range(3)])
    k_RW = np.stack([rng.integers(1, n + 1, size=6) for _ in range(3)])
    k_RW[:, 0], k_RW[:, 1] = 1, n
    check(logits_RN, values, order_RN, k_RW)


@pytest.mark.parametrize("kind", ["random", "tied", "one_hot", "uniform", "extreme", "frozen"])
@pytest.mark.parametrize("n", [1, 2, 3, 17, 300])
def test_row_statistics_agree_with_brute_force(kind, n):
    rng = np.random.default_rng(n)
    logits_RN = np.float32(np.stack([rows_of(kind, n, rng) for _ in range(4)]))
    statistics = ExactRows.from_logits(torch.tensor(logits_RN)).statistics()
    for r, row in enumerate(logits_RN.astype(float)):
        for name, expected in brute_force.statistics(row).items():
            assert statistics[name][r].item() == pytest.approx(expected, rel=1e-6, abs=1e-9), (name, row)


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=40),
    data=st.data(),
)
def test_any_row_and_any_window(logits, data):
    n = len(logits)
    k = data.draw(st.lists(st.integers(1, n), min_size=1, max_size=5))
    check(np.array([logits]), np.random.default_rng(n).normal(size=(n, 3)), None, np.array([k]))


def test_invisible_keys_are_as_if_absent():
    rng = np.random.default_rng(0)
    logits_RN = torch.tensor(rng.normal(size=(5, 40)), dtype=torch.float32)
    masked_RN = logits_RN.masked_fill(torch.arange(40) >= 23, -torch.inf)
    whole, part = ExactRows.from_logits(masked_RN), ExactRows.from_logits(logits_RN[:, :23])
    for name, values_R in part.statistics().items():
        torch.testing.assert_close(whole.statistics()[name], values_R)
    values, k_RW = torch.randn(40, 4, generator=torch.manual_seed(0)), torch.tensor([[1, 7, 23]] * 5)
    expected = measure_subset(part.order_RN, part.probability_RN, values[:23], k_RW)
    for name, found in measure_subset(whole.order_RN, whole.probability_RN, values, k_RW).items():
        torch.testing.assert_close(found, expected[name])


def test_a_dropped_mass_of_one_in_a_million_is_right_to_one_percent():
    # 2^17 keys share a mass of 1e-6: summed in float32, or as 1 - kept, it would be lost.
    n = 2**17
    logits_RN = torch.full((1, n), float(np.log(1e-6 / n)))
    logits_RN[0, 12345] = float(np.log1p(-1e-6))
    exact = ExactRows.from_logits(logits_RN)
    measured = measure_subset(exact.order_RN, exact.probability_RN, torch.ones(n, 1), torch.tensor([[1]]))
    assert measured["dropped_mass"].item() == pytest.approx(1e-6, rel=1e-2)
    assert measured["output_truncated"].sqrt().item() == pytest.approx(1e-6, rel=1e-2)
    assert exact.smallest_RN[0, n - 2].item() == pytest.approx(1e-6, rel=1e-2)


def test_long_rows_keep_their_digits():
    # 300000 values per segment: float32 alone would lose three digits of the output error.
    n, generator = 300_000, torch.manual_seed(1)
    exact = ExactRows.from_logits(torch.randn(1, n, generator=generator))
    values_NV = torch.randn(n, 2, generator=generator)
    found = measure_subset(exact.order_RN, exact.probability_RN, values_NV, torch.tensor([[10]]))["output_truncated"]
    dropped = exact.probability_RN[0, 10:] @ values_NV.double()[exact.order_RN[0, 10:]]
    assert found.item() == pytest.approx(dropped.square().sum().item(), rel=1e-5)


@pytest.fixture(scope="module")
def gaussian_rows():
    generator = torch.manual_seed(3)
    exact = ExactRows.from_logits(2 * torch.randn(50, 500, generator=generator))
    values_NV = torch.randn(500, 8, generator=generator)
    k_RW = torch.tensor([[1, 5, 22, 100, 400]] * 50)
    return exact, values_NV, k_RW, measure_subset(exact.order_RN, exact.probability_RN, values_NV, k_RW)


def test_identities_T1_to_T6_hold_row_by_row(gaussian_rows):
    exact, values_NV, k_RW, measured = gaussian_rows
    p_RN, order_RN = exact.probability_RN, exact.order_RN
    for w, k in enumerate(k_RW[0].tolist()):
        head_RN, tail_RN = p_RN[:, :k], p_RN[:, k:]
        tau_R = tail_RN.sum(-1)
        values_RNV = values_NV.double()[order_RN]
        mean_tail = torch.einsum("rn,rnv->rv", tail_RN, values_RNV[:, k:]) / tau_R[:, None]
        mean_head = torch.einsum("rn,rnv->rv", head_RN, values_RNV[:, :k]) / (1 - tau_R)[:, None]
        odds_R = tau_R / (1 - tau_R)
        expected = {
            "tv": tau_R,  # [T1]
            "kl": -torch.log(1 - tau_R),  # [T2]
            "linf_truncated": p_RN[:, k],  # [T3]
            "linf_renormalised": torch.maximum(p_RN[:, k], p_RN[:, 0] * odds_R),
            "l2_truncated": tail_RN.square().sum(-1).sqrt(),  # [T5]
            "l2_renormalised": (tail_RN.square().sum(-1) + odds_R**2 * head_RN.square().sum(-1)).sqrt(),
            "output_truncated": (tau_R[:, None] * mean_tail).square().sum(-1),  # [T6]
            "output_renormalised": (tau_R[:, None] * (mean_tail - mean_head)).square().sum(-1),
        }
        for name, expected_R in expected.items():
            torch.testing.assert_close(measured[name][:, w], expected_R, rtol=1e-5, atol=1e-12)
        assert (measured["linf_truncated"][:, w] <= 1 / (k + 1)).all()  # [T4]


def test_block_size_changes_nothing(gaussian_rows):
    exact, values_NV, k_RW, measured = gaussian_rows
    for start, stop in ((0, 1), (7, 20), (20, 50)):
        block = ExactRows.from_logits(exact.logits_RN[start:stop])
        part = measure_subset(block.order_RN, block.probability_RN, values_NV, k_RW[start:stop])
        for name, found in part.items():
            torch.testing.assert_close(found, measured[name][start:stop], rtol=1e-6, atol=1e-12)
