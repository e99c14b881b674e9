"""The matched gamma law [G8] against theory.md's oracles [G8g], rows made of a gamma law, and rows taken apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

import analysis
from analysis.statistics.matched_gamma import MatchedGamma, keys_from_sums, match, sum_for

SECOND = ("log_p_variance", "participation", "root_sum")


def law(a, q, n=1.0):
    a, q, n = (np.asarray(x, np.float64) for x in (a, q, n))
    return MatchedGamma(a, np.log1p(q), np.sqrt(a) * np.abs(q), n, np.zeros_like(n), np.ones_like(n))


def sums_of(logits):
    """Return n, entropy, largest probability and the three second sums of a row."""
    p = special.softmax(logits)
    entropy = float(special.entr(p).sum())
    second = {
        "log_p_variance": float((p * (np.log(p) + entropy) ** 2).sum()),
        "participation": float(1 / (p**2).sum()),
        "root_sum": float(np.sqrt(p).sum()),
    }
    return len(p), entropy, float(p.max()), second


def exact_keys(logits, eta):
    p = np.sort(special.softmax(logits))[::-1]
    return int((1 - np.cumsum(p) > eta * (1 + 1e-9)).sum()) + 1


@pytest.mark.parametrize(
    ("a", "q", "eta", "share"),
    [
        (1, 1, 0.1, 0.81),
        (1, -0.5, 0.1, 0.683772),
        (0.5, 1, 0.1, 0.858949),
        (4, 0.5, 0.1, 0.732264),
        (4, -0.6, 0.1, 0.279813),
        (4, -0.6, 0.01, 0.570048),
    ],
)
def test_windows_of_known_laws(a, q, eta, share):
    big = 1e9  # so that k is not held at 1
    keys = law(a, q, big).keys(eta)
    assert keys / big == pytest.approx(share, abs=1e-6)
    assert law(a, q, big).dropped_mass(keys) == pytest.approx(eta, abs=1e-9)


@pytest.mark.parametrize(
    ("a", "q", "gaps"),
    [(4, -0.6, (1.265163, 1.785148, 0.811763, 1.44)), (4, 0.5, (0.378140, 1.150728, 0.163288, 1.0))],
)
def test_matching_the_sums_of_a_law_gives_the_law_back(a, q, gaps):
    n = 1e6
    to_entropy, to_collision, to_root, variance = gaps
    second = {
        "log_p_variance": variance,
        "participation": n * np.exp(-to_collision),
        "root_sum": np.sqrt(n * np.exp(-to_root)),
    }
    for name, value in second.items():
        matched = match(n, np.log(n) - to_entropy, **{name: value})
        assert matched.q == pytest.approx(q, abs=1e-4), name
        assert matched.shape == pytest.approx(a, rel=1e-3), name


@pytest.mark.parametrize("second", SECOND)
def test_a_discrete_gamma_row_gives_its_law_back(second):
    n = 2**15
    logits = -1.5 * special.gammaincinv(4, (np.arange(1, n + 1) - 0.5) / n)
    keys, entropy, _, sums = sums_of(logits)
    matched = match(keys, entropy, **{second: sums[second]})
    assert matched.q == pytest.approx(-0.6, abs=1e-3)
    assert matched.shape == pytest.approx(4.0, abs=0.01)
    for eta in (0.5, 0.1, 0.01):
        assert matched.keys(eta) / n == pytest.approx(exact_keys(logits, eta) / n, abs=2e-4)


@pytest.mark.parametrize(
    ("second", "ratio"), [("log_p_variance", 0.988), ("participation", 0.940), ("root_sum", 0.999)]
)
def test_a_discrete_normal_row_is_met_as_well_as_the_theory_says(second, ratio):
    n = 2**15
    logits = 2 * stats.norm.ppf((np.arange(1, n + 1) - 0.5) / n)
    keys, entropy, _, sums = sums_of(logits)
    found = keys_from_sums(0.1, keys, entropy, **{second: sums[second]})
    assert found / exact_keys(logits, 0.1) == pytest.approx(ratio, abs=1e-3)


@pytest.mark.parametrize("second", SECOND)
@given(seed=st.integers(0, 999), n=st.integers(3, 60), scale=st.floats(0.01, 4))
def test_sums_without_the_most_probable_key_are_those_of_the_row_without_it(second, seed, n, scale):
    logits = np.sort(np.random.default_rng(seed).normal(0, scale, n))[::-1]
    keys, entropy, p_max, sums = sums_of(logits)
    rest_keys, rest_entropy, _, rest_sums = sums_of(logits[1:])
    within = match(keys, entropy, p_max, **{second: sums[second]})
    alone = match(rest_keys, rest_entropy, **{second: rest_sums[second]})
    assert within.n == alone.n
    assert within.support == pytest.approx(alone.support, rel=1e-6)
    for eta in (0.3, 0.02):
        left = eta / (1 - p_max)
        expected = 1.0 if left >= 1 else min(max(float(alone.n * alone._share_of_keys(np.asarray(left))) + 1, 1), n)
        assert within.keys(eta) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("second", SECOND)
def test_uniform_rows_need_their_share_of_keys(second):
    """All keys alike, and alike on 100 of 1000 keys [G8f]."""
    n = np.array([1000.0, 1000.0])
    support = np.array([1000.0, 100.0])
    values = {"log_p_variance": np.zeros(2), "participation": support, "root_sum": np.sqrt(support)}
    matched = match(n, np.log(support), **{second: values[second]})
    if second == "log_p_variance":  # the others tend to it as slowly as 1 / |ln(1 + q)|
        np.testing.assert_allclose(matched.keys(0.1), 0.9 * support, rtol=1e-6)
        np.testing.assert_allclose(matched.dropped_mass(0.9 * support), 0.1, atol=1e-6)
        np.testing.assert_allclose(matched.count_above(0.002), [0.0, 100.0])
    else:
        np.testing.assert_allclose(matched.keys(0.1), 0.9 * support, rtol=0.12)


@given(
    n=st.integers(1, 10**6),
    share=st.floats(0, 1),
    p_max=st.floats(0, 1),
    value=st.floats(1e-3, 1e3),
    second=st.sampled_from(SECOND),
    eta=st.floats(1e-4, 0.9),
)
def test_whatever_the_sums_the_keys_lie_between_1_and_n(n, share, p_max, value, second, eta):
    """Also sums that no row has: rounding can make such."""
    keys = keys_from_sums(eta, n, share * np.log(n), p_max, **{second: value})
    assert 1 <= keys <= max(n, 2)


@pytest.mark.parametrize("second", SECOND)
@given(seed=st.integers(0, 99), scale=st.floats(0.05, 3))
def test_keys_and_dropped_mass_are_inverse_and_fall(second, seed, scale):
    logits = np.random.default_rng(seed).normal(0, scale, 400)
    keys, entropy, p_max, sums = sums_of(logits)
    matched = match(keys, entropy, p_max, **{second: sums[second]})
    k = np.arange(1.0, keys + 1)
    dropped = matched.dropped_mass(k)
    assert (np.diff(dropped) <= 1e-9).all()
    assert dropped[0] == pytest.approx(1 - p_max, abs=1e-6)
    inside = (dropped > 1e-6) & (dropped < (1 - p_max) * 0.999)
    np.testing.assert_allclose(matched.keys(dropped[inside]), k[inside], rtol=1e-4, atol=1e-4)
    counts = matched.count_above(np.array([1e-9, 1e-4, 1e-3, 1e-2]))
    assert (np.diff(counts) <= 1e-6).all()
    assert ((counts >= 0) & (counts <= keys)).all()


def test_counts_above_a_threshold_are_those_of_the_row():
    """[G8d] on rows of the law itself."""
    n = 2**15
    for a, theta in ((4, -1.5), (1, 0.4)):
        quantile = special.gammaincinv(a, (np.arange(1, n + 1) - 0.5) / n)
        logits = theta * quantile
        keys, entropy, _, sums = sums_of(logits)
        matched = match(keys, entropy, log_p_variance=sums["log_p_variance"])
        p = special.softmax(logits)
        for eps in np.quantile(p, [0.3, 0.9, 0.99]):
            assert matched.count_above(eps) == pytest.approx((p > eps).sum(), rel=0.02)


def test_gaussian_rows_beyond_the_domain_are_missed():
    """Above s = 1.41 a few keys carry every sum; the law is not to be trusted there, and is seen not to be."""
    draw = np.random.default_rng(0)
    n = 2**14
    errors = {}
    for s in (0.5, 1.5):
        ratios = []
        for _ in range(20):
            logits = draw.normal(0, s * np.sqrt(np.log(n)), n)
            keys, entropy, p_max, sums = sums_of(logits)
            found = keys_from_sums(0.01, keys, entropy, p_max, participation=sums["participation"])
            ratios.append(np.log(found / exact_keys(logits, 0.01)))
        errors[s] = abs(np.mean(ratios))
    assert errors[0.5] < 0.05
    assert errors[1.5] > 0.3


@pytest.mark.parametrize(
    ("eta", "name"),
    [
        (0.5, "participation"),
        (0.2, "participation"),
        (0.1, "log_p_variance"),
        (0.05, "log_p_variance"),
        (0.01, "root_sum"),
    ],
)
def test_which_sum_serves_which_tolerance(eta, name):
    assert sum_for(eta) == name


def test_keys_come_from_the_columns_of_a_record(analysed):
    rows, _ = analysis.load(analysed)
    found = analysis.keys_from_sums(
        0.1, rows["n"], rows["entropy"], rows["p_max"], log_p_variance=rows["log_p_variance"]
    )
    known = rows["log_p_variance"].notna()
    ratio = np.log(found[known] / rows.loc[known, "k_min_0.1"])
    assert np.median(np.abs(ratio)) < 0.1


def test_one_second_sum_is_asked_for():
    for second in ({}, {"variance": 1.0}, {"log_p_variance": 1.0, "root_sum": 3.0}):
        with pytest.raises(ValueError, match="exactly one of"):
            keys_from_sums(0.1, 100, 3.0, **second)
    assert np.isnan(keys_from_sums(0.1, 100, 3.0, log_p_variance=np.nan))
