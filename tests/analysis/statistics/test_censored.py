"""The slope of keys where resamples need more of them than were measured, or fewer, against plain least squares."""

import numpy as np
import pytest

from analysis.statistics.bootstrap import interval
from analysis.statistics.censored import slope_of
from analysis.statistics.line import slopes

X = np.log([256.0, 1024.0, 4096.0, 16384.0])
ENDS = np.log([[8.0, 200.0], [8.0, 400.0], [8.0, 800.0], [8.0, 1600.0]])  # fewest and most keys measured
SAMPLES, CONFIDENCE = 6, 0.95
NONE = np.zeros((201, len(X)), bool)


@pytest.fixture
def keys():
    """Ln of 3 n^0.5 keys: first of all samples, then of resamples that scatter about it."""
    scatter = 0.1 * np.random.default_rng(0).normal(size=(len(NONE), len(X)))
    scatter[0] = 0
    return np.log(3) + 0.5 * X + scatter


def plain(keys):
    slope = slopes(keys, X)
    return (slope[0], *interval(slope[0], slope[1:], SAMPLES, CONFIDENCE))


def censored(keys, fewer=NONE):
    found = slope_of(keys, fewer, ENDS, X, SAMPLES, CONFIDENCE)
    assert np.isfinite(found).all()
    assert found[1] <= found[0] <= found[2]
    return found


def at(length, share=0.3):
    """Tell which resamples lack something at a length: a share of them, never that of all samples."""
    chosen = NONE.copy()
    chosen[1 : 1 + int(share * len(NONE)), length] = True
    return chosen


def test_the_interval_is_that_of_least_squares_where_all_keys_are_known(keys):
    np.testing.assert_allclose(censored(keys), plain(keys), rtol=1e-12)
    assert censored(keys)[0] == pytest.approx(0.5)


@pytest.mark.parametrize(("length", "end"), [(-1, 2), (0, 1)])
def test_resamples_that_need_more_keys_than_were_measured_widen_the_end_that_they_bear_on(keys, length, end):
    more = at(length)
    found, known = censored(np.where(more, np.nan, keys)), plain(keys[~more.any(1)])
    assert found[0] == pytest.approx(known[0], rel=1e-12)
    outward = 1 if end == 2 else -1
    assert outward * (found[end] - known[end]) > 0.1
    # the other end takes them to need no more than the most keys that were measured
    other = plain(np.where(more, ENDS[length, 1], keys))
    assert found[3 - end] == pytest.approx(other[3 - end], rel=1e-12)
    all_of_them = plain(np.where(more, X[length], keys))
    assert found[end] == pytest.approx(all_of_them[end], rel=1e-12)


@pytest.mark.parametrize(("length", "end"), [(-1, 1), (0, 2)])
def test_resamples_that_need_fewer_keys_than_were_measured_widen_the_other_end(keys, length, end):
    fewer = at(length)
    keys = np.where(fewer, ENDS[length, 0], keys)
    found, known = censored(keys, fewer), plain(keys)
    assert found[0] == pytest.approx(known[0], rel=1e-12)
    outward = 1 if end == 2 else -1
    assert outward * (found[end] - known[end]) > 0.1
    assert found[3 - end] == pytest.approx(known[3 - end], rel=1e-12)  # the fewest keys, at most
    one_key = plain(np.where(fewer, 0.0, keys))
    assert found[end] == pytest.approx(one_key[end], rel=1e-12)


def test_ends_are_finite_where_hardly_a_resample_knows_all_lengths(keys):
    more, fewer = at(-1, 0.9), at(0, 0.9)
    steepest = censored(np.where(more, np.nan, keys))[2]
    found = censored(np.where(more, np.nan, keys), fewer)
    assert 0 < found[1] < 0.5 < steepest < found[2]
