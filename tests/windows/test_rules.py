"""How many keys each rule keeps, rounding and edges included."""

import math

import numpy as np
import pytest
import torch

from experiments.errors import UserError
from experiments.measures.compute import Compute
from experiments.reference.exact import ExactRows
from experiments.windows import MOST_WINDOWS, Windows
from experiments.windows.budget import Budget
from experiments.windows.equal_cost import EqualCost
from experiments.windows.rules.fixed import Fixed
from experiments.windows.rules.linear import Linear
from experiments.windows.rules.log import Log
from experiments.windows.rules.peak_threshold import PeakThreshold
from experiments.windows.rules.power import Power
from experiments.windows.rules.relative_threshold import RelativeThreshold
from experiments.windows.rules.threshold import Threshold
from experiments.windows.rules.top_p import TopP
from tests import brute_force


@pytest.fixture
def windows(job):
    """Windows of one rule at one length, and the keys they keep on rows of given sizes."""

    def keep(length, sizes, *overrides, rule):
        job_ = job(f"windows/rules=[{rule}]", *overrides)
        windows = job_.windows.at(length)
        visible_RN = torch.arange(length) < torch.tensor(sizes)[:, None]
        logits_RN = torch.randn(len(sizes), length, generator=torch.manual_seed(0))
        exact = ExactRows.from_logits(logits_RN.masked_fill(~visible_RN, -torch.inf))
        return windows.columns(), windows.keys(exact), exact

    return keep


def test_power_windows_round_up_except_for_rounding_noise(windows):
    columns, k_RW, _ = windows(1024, [1024, 1, 2], "windows.exponents=[0.9,0.5,0.33]", rule="power")
    assert k_RW.tolist() == [[512, 32, math.ceil(1024**0.33)], [1, 1, 1], [2, 2, 2]]
    assert columns == {"rule": ["power"] * 3, "parameter": [0.9, 0.5, 0.33], "scale": [1.0] * 3}


def test_scales_multiply_powers(windows):
    columns, k_RW, _ = windows(256, [256], "windows.exponents=[0.5]", "windows.scales=[0.5,2,100]", rule="power")
    assert k_RW.tolist() == [[8, 32, 256]]
    assert columns["scale"] == [0.5, 2.0, 100.0]


def test_log_windows(windows):
    columns, k_RW, _ = windows(1000, [1000, 1], "windows.log_powers=[1,2]", "windows.log_factors=[1,4]", rule="log")
    x = math.log(1000)
    assert k_RW[0].tolist() == [math.ceil(x), math.ceil(4 * x), math.ceil(x**2), math.ceil(4 * x**2)]
    assert k_RW[1].tolist() == [1, 1, 1, 1]
    assert list(zip(columns["parameter"], columns["scale"], strict=True)) == [(1, 1), (1, 4), (2, 1), (2, 4)]


def test_fixed_and_linear_windows_are_held_within_the_row(windows):
    _, fixed_RW, _ = windows(100, [100, 20, 1], "windows.fixed=[1,50,1000]", rule="fixed")
    assert fixed_RW.tolist() == [[1, 50, 100], [1, 20, 20], [1, 1, 1]]
    _, linear_RW, _ = windows(100, [100, 20, 1], "windows.fractions=[0.01,0.25,1.0]", rule="linear")
    assert linear_RW.tolist() == [[1, 25, 100], [1, 5, 20], [1, 1, 1]]


def test_top_p_and_threshold_look_at_the_row(windows):
    for rule, override in (("top_p", "windows.top_p=[0.5,0.01]"), ("threshold", "windows.thresholds=[0.01,0.2]")):
        _, k_RW, exact = windows(60, [60, 7, 1], override, rule=rule)
        for r, n in enumerate([60, 7, 1]):
            p = brute_force.softmax(exact.logits_RN[r, :n].double().numpy())
            if rule == "top_p":
                expected = [brute_force.k_min(p, eta) for eta in (0.5, 0.01)]
            else:
                expected = [max(1, (p > eps).sum()) for eps in (0.01, 0.2)]
            assert k_RW[r].tolist() == expected


@pytest.mark.parametrize("rule", ["relative_threshold", "peak_threshold"])
def test_thresholds_in_one_over_n_go_by_the_keys_that_the_row_sees(windows, rule):
    factors = [0.1, 0.9, 3.0, 1e9]
    columns, k_RW, exact = windows(60, [60, 7, 1], f"windows.{rule}={factors}", rule=rule)
    assert columns == {"rule": [rule] * 4, "parameter": factors, "scale": [1.0] * 4}
    for r, n in enumerate([60, 7, 1]):
        p = brute_force.softmax(exact.logits_RN[r, :n].double().numpy())
        share = p / p.max() if rule == "peak_threshold" else p
        assert k_RW[r].tolist() == [max(1, (share > a / n).sum()) for a in factors]


@pytest.mark.parametrize("of_peak", [False, True])
def test_thresholds_in_one_over_n_agree_on_both_paths_and_count_a_learned_sink(of_peak):
    logits_RN = 3 * torch.randn(6, 200, generator=torch.manual_seed(1))
    logits_RN[torch.arange(200) > torch.arange(6)[:, None] * 30 + 10] = -torch.inf
    sink_R = torch.linspace(-2, 6, 6)
    value_NV = torch.randn(200, 8, generator=torch.manual_seed(2))
    rule = PeakThreshold([0.5, 4.0]) if of_peak else RelativeThreshold([0.5, 4.0])
    windows = Windows([Fixed([3]), rule], [[(3.0, 1.0)], rule.coordinates(200)])
    n_R = torch.isfinite(logits_RN).sum(-1)
    sizes = windows.sizes(n_R, n_R - 1)
    for sink in (None, sink_R):
        quick, plain = (
            Compute(reference=reference).measure_top_k(logits_RN, value_NV, sizes, sink) for reference in (0, 1)
        )
        assert torch.equal(quick[1], plain[1])
        torch.testing.assert_close(quick[2]["dropped_mass"], plain[2]["dropped_mass"], atol=1e-6, rtol=1e-5)
        for r, row_N in enumerate(logits_RN):
            row = row_N[row_N.isfinite()].double().numpy()
            p = brute_force.softmax(row if sink is None else np.append(row, float(sink[r])))[: len(row)]
            share = p / p.max() if of_peak else p
            assert quick[1][r].tolist() == [3, *(max(1, (share > a / len(row)).sum()) for a in (0.5, 4.0))]


def test_the_grid_is_geometric_and_ends_at_the_length(windows):
    columns, k_RW, _ = windows(64, [64, 10], "windows.grid_per_octave=2", rule="grid")
    assert columns["parameter"] == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]
    assert k_RW[1].tolist() == [1, 2, 3, 4, 6, 8, 10, 10, 10, 10, 10, 10]


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("windows.exponents=[1.0]", "C = 1.0"),
        ("windows.exponents=[0.0]", "C = 0.0"),
        ("windows.scales=[-1]", "alpha"),
        ("windows.fixed=[0]", "windows.fixed has 0"),
        ("windows.log_factors=[-2]", "log_factors"),
        ("windows.fractions=[1.5]", "beta"),
        ("windows.top_p=[1.0]", "eta"),
        ("windows.thresholds=[0]", "eps"),
        ("windows.relative_threshold=[0]", "relative_threshold has a = 0"),
        ("windows.peak_threshold=[inf]", "peak_threshold has inf"),
        ("windows.grid_per_octave=-1", "grid_per_octave"),
        ("windows.grid_per_octave=1000000000", "grid_per_octave"),
        ("windows.scales=[nan]", "windows.scales has nan"),
        ("windows.log_powers=[inf]", "windows.log_powers has inf"),
        ("windows.exponents=[0.5,0.5]", "windows.exponents has 0.5 twice"),
        ("windows.fixed=[16,16]", "windows.fixed has 16 twice"),
    ],
)
def test_values_out_of_range_are_refused_by_name(job, override, word):
    with pytest.raises(UserError, match=word):
        job(override)


@pytest.mark.parametrize(
    ("rule", "override"),
    [
        ("power", "windows.scales=[1e300]"),
        ("log", "windows.log_factors=[1e300]"),
        ("log", "windows.log_powers=[1e4]"),
        ("fixed", "windows.fixed=[9223372036854775807]"),
    ],
)
def test_a_window_that_overflows_keeps_every_key(windows, rule, override):
    _, k_RW, _ = windows(100, [100, 20], override, rule=rule)
    assert (k_RW == torch.tensor([[100], [20]])).all()


def test_a_number_of_keys_that_is_no_number_is_refused():
    class Odd:
        rule = "odd"

        def sizes(self, n_R, parameter_W, scale_W):
            return n_R[:, None] * float("nan") * parameter_W

    exact = ExactRows.from_logits(torch.zeros(2, 4))
    with pytest.raises(UserError, match="no number"):
        Windows([Odd()], [[(1.0, 1.0)]]).keys(exact)


def test_more_windows_than_can_be_counted_and_two_of_one_name_are_refused():
    rule = Fixed(keys=[1])
    Windows([rule], [[(float(k), 1.0) for k in range(MOST_WINDOWS)]])
    with pytest.raises(UserError, match="at most 65535"):
        Windows([rule], [[(float(k), 1.0) for k in range(MOST_WINDOWS + 1)]])
    with pytest.raises(UserError, match="fixed 3 x 1 is there twice"):
        Windows([rule, rule], [[(2.0, 1.0), (3.0, 1.0)], [(3.0, 1.0)]])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.0])
def test_every_rule_refuses_what_is_no_number_even_from_python(number):
    for part in (
        lambda: Power([number], [1.0]),
        lambda: Power([0.5], [number]),
        lambda: Log([number], [1.0]),
        lambda: Log([1.0], [number]),
        lambda: Linear([number]),
        lambda: TopP([number]),
        lambda: Threshold([number]),
        lambda: RelativeThreshold([number]),
        lambda: PeakThreshold([number]),
        lambda: Fixed([number]),
        lambda: Budget("budget.json", [number]),
        lambda: EqualCost([number], [0.5]),
        lambda: EqualCost([4], [number]),
    ):
        with pytest.raises(UserError, match="windows"):
            part()


def test_no_windows_at_all_is_refused(job):
    empty = ["exponents", "fixed", "log_powers", "fractions", "top_p", "thresholds"]
    with pytest.raises(UserError, match="no windows"):
        job(*(f"windows.{name}=[]" for name in empty), "windows.grid_per_octave=0").windows.at(100)
