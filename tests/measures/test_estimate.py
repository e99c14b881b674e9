"""An estimate that is the row itself errs by nothing, and one that is a selection's row is that selection."""

import pytest
import torch

from experiments.answers import Estimate, Subset
from experiments.errors import UserError
from experiments.measures.compute import Compute
from experiments.measures.estimate import measure_estimate, measure_weighted
from experiments.measures.output import output_of
from experiments.reference.exact import ExactRows
from experiments.reference.subset import measure_subset

GENERATOR = torch.Generator().manual_seed(7)
K_RW = torch.tensor([[1, 3, 20], [2, 9, 20]])


@pytest.fixture
def exact():
    return ExactRows.from_logits(2 * torch.randn(2, 20, generator=GENERATOR))


@pytest.fixture
def value_NV():
    return torch.randn(20, 6, generator=GENERATOR)


def test_the_exact_row_errs_by_nothing(exact, value_NV):
    p_RN = exact.in_key_order()
    for name, values in measure_estimate(lambda k_R: p_RN, p_RN, value_NV, K_RW).items():
        if name == "dropped_mass":
            assert values.isnan().all()
        elif name != "output":
            assert values.abs().max() < 1e-12, name


def test_a_selections_row_is_the_selection(exact, value_NV):
    """Measured along both paths: segments of a ranked row, and the row written out."""
    order_RN = torch.stack([torch.randperm(20, generator=GENERATOR) for _ in range(2)])
    expected = measure_subset(order_RN, exact.probabilities(order_RN), value_NV, K_RW)
    one_RN = torch.ones(2, 20, dtype=torch.float64)
    weighted = measure_weighted(order_RN, lambda k_R: one_RN, exact.in_key_order(), value_NV, K_RW)
    assert set(weighted) == set(expected)
    for name, values in expected.items():
        torch.testing.assert_close(weighted[name], values, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def test_signs_failures_and_budgets_below_the_least_are_told(exact, value_NV):
    p_RN = exact.in_key_order()

    def row(k_R):
        w_RN = p_RN.clone()
        w_RN[0, 0] -= 0.4  # a negative entry may be left
        w_RN[1] = 1e-3 * p_RN[1]  # sums to nearly nothing
        return torch.where(k_R[:, None] >= 3, w_RN, torch.nan)

    measured = measure_estimate(row, p_RN, value_NV, torch.tensor([[1, 3], [1, 3]]))
    assert all(values[:, 0].isnan().all() for name, values in measured.items() if name != "output")
    w_N = row(torch.tensor([3, 3]))[0]
    renormalised_N = w_N / w_N.sum()
    assert float(measured["negative_mass"][0, 1]) == pytest.approx(float(-renormalised_N.clamp(max=0).sum()))
    assert bool(measured["kl"][0, 1].isnan()) == bool((w_N < 0).any())
    assert measured["failed"][:, 1].tolist() == [0.0, 1.0]
    assert measured["tv"][1, 1].isnan()
    assert float(measured["l2_truncated"][1, 1]) == pytest.approx(0.999 * float(p_RN[1].norm()))


def test_what_a_model_goes_on_with_is_the_renormalised_row(value_NV):
    logits_RN = torch.randn(2, 20, generator=GENERATOR)
    order_RN = torch.stack([torch.randperm(20, generator=GENERATOR) for _ in range(2)])
    weight_RN = 1 + torch.rand(2, 20, generator=GENERATOR).double()
    k_R = torch.tensor([4, 9])
    always_RN = torch.zeros(2, 20, dtype=torch.bool)
    always_RN[:, [3, 5]] = True
    for weight in (None, lambda k_R: weight_RN):
        for always in (None, always_RN):
            answer = Subset(lambda: order_RN, weight)
            output_RV = output_of(answer, lambda: logits_RN, value_NV, k_R, Compute(), always)
            for r, k in enumerate(k_R.tolist()):
                order = order_RN[r].tolist()
                if always is not None:
                    order = [j for j in order if j in (3, 5)] + [j for j in order if j not in (3, 5)]
                kept = order[:k]
                w = torch.softmax(logits_RN[r].double(), -1)
                if weight is not None:
                    w = w * weight_RN[r] if always is None else w * weight_RN[r].masked_fill(always_RN[r], 1.0)
                expected_V = (w[kept, None] * value_NV[kept].double()).sum(0) / w[kept].sum()
                torch.testing.assert_close(output_RV[r].double(), expected_V, rtol=1e-4, atol=1e-6)


def test_an_estimate_that_sums_to_nothing_stops_the_model(value_NV):
    answer = Estimate(lambda k_R, logsumexp_R: torch.zeros(2, 20, dtype=torch.float64))
    with pytest.raises(UserError, match="sums to nothing"):
        output_of(answer, lambda: torch.zeros(2, 20), value_NV, torch.tensor([1, 1]), Compute())
