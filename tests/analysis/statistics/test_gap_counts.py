"""Keys from gap counts, of rows whose law is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from analysis.statistics import closed_forms
from analysis.statistics.gap_counts import keys_from_gap_counts

EPSILONS = (0.1, 0.01, 0.001)
QUANTILES = special.ndtri((np.arange(1 << 13) + 0.5) / (1 << 13))


def row(logits):
    p = np.exp(logits - logits.max())
    return -np.sort(-p / p.sum())


def asked(p, eta):
    needed = int((np.cumsum(p) < 1 - eta).sum()) + 1
    return needed, (eta, len(p), p[0], {eps: (p > eps).sum() for eps in EPSILONS})


@pytest.mark.parametrize("sigma", [2.0, 2.5])
@pytest.mark.parametrize("eta", [0.5, 0.1, 0.01])
def test_normal_logits_are_found_again(sigma, eta):
    needed, known = asked(row(sigma * QUANTILES), eta)
    assert float(keys_from_gap_counts(*known)) == pytest.approx(needed, rel=0.1)


def test_a_long_lower_tail_does_not_mislead_them():
    """Half of the keys lie far below: the deviation of all logits is not that of those near the top."""
    logits = 2 * QUANTILES
    logits[::2] -= 30
    needed, known = asked(row(logits), 0.1)
    error = abs(np.log(float(keys_from_gap_counts(*known)) / needed))
    by_deviation = closed_forms.smallest_window(0.1, len(logits), logits.std())
    assert error < 0.6 < 2 < abs(np.log(float(by_deviation) / needed))


def test_a_sink_is_no_part_of_the_line():
    logits = 2 * QUANTILES
    logits[0] = 12.0
    p = row(logits)
    assert p[0] > 0.4
    needed, known = asked(p, 0.1)
    assert float(keys_from_gap_counts(*known)) == pytest.approx(needed, rel=0.15)


def test_rows_are_taken_together():
    every = [row(sigma * QUANTILES) for sigma in (0.5, 2.0, 6.0)]
    counts = {eps: np.array([(p > eps).sum() for p in every]) for eps in EPSILONS}
    together = keys_from_gap_counts(0.1, len(QUANTILES), np.array([p[0] for p in every]), counts)
    np.testing.assert_allclose(together, [float(keys_from_gap_counts(*asked(p, 0.1)[1])) for p in every])


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0])
def test_flat_rows_of_which_no_key_is_counted_are_found_by_their_largest_probability(sigma):
    needed, (eta, n, p_max, counts) = asked(row(sigma * QUANTILES), 0.1)
    if sigma < 1:
        assert set(counts.values()) == {0}
    assert float(keys_from_gap_counts(eta, n, p_max, counts)) == pytest.approx(needed, rel=0.05)


def test_a_row_that_is_one_key_needs_one():
    assert float(keys_from_gap_counts(0.1, 100, 1.0, dict.fromkeys(EPSILONS, 1))) == 1
    assert float(keys_from_gap_counts(0.1, 1, 1.0, dict.fromkeys(EPSILONS, 1))) == 1


@given(
    n=st.integers(1, 5000),
    p_max=st.floats(1e-4, 1),
    parts=st.tuples(*[st.floats(0, 1)] * 3),
    eta=st.floats(0.01, 0.9),
)
def test_whatever_the_counts_the_keys_lie_between_1_and_n(n, p_max, parts, eta):
    counts, most = {}, 0
    for eps, part in zip(EPSILONS, parts, strict=True):
        most = max(most, min(n, int(part / eps)), int(p_max > eps))
        counts[eps] = most
    assert 1 <= float(keys_from_gap_counts(eta, n, p_max, counts)) <= n
