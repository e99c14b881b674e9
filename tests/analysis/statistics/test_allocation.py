"""Keys shared out by gain are those of brute force, where curves are convex and where they are not."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.statistics.allocation import PYRAMID, Curve, bounds, by_gain, in_proportion, pyramid

MOST = 6
LOSSES = st.lists(st.floats(0, 4), min_size=MOST - 1, max_size=MOST - 1)


def convex(falls):
    """A loss at 1..MOST keys that ends at 0, each key gaining no more than the one before."""
    return np.cumsum(np.sort(falls))[::-1]


@settings(deadline=None, max_examples=80)
@given(st.lists(LOSSES, min_size=1, max_size=4), st.data())
def test_no_other_way_loses_less(falls, data):
    curves = [Curve.of(range(1, MOST), convex(each), MOST) for each in falls]
    total = data.draw(st.integers(len(curves), MOST * len(curves)))
    keys = by_gain(curves, [1] * len(curves), total / len(curves))
    assert keys.sum() == pytest.approx(total)
    lost = [np.append(convex(each), 0.0) for each in falls]
    every = (way for way in product(range(MOST), repeat=len(curves)) if sum(way) + len(way) == total)
    best = min(sum(each[k] for each, k in zip(lost, way, strict=True)) for way in every)
    assert sum(curve.at(k) for curve, k in zip(curves, keys, strict=True)) == pytest.approx(best, abs=1e-9)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(-1, 4), min_size=2, max_size=8))
def test_the_hull_is_convex_falls_and_lies_below_what_was_measured(losses):
    keys = np.arange(2, len(losses) + 2)
    curve = Curve.of(keys, losses, 20)
    slopes = np.diff(curve.loss) / np.diff(curve.keys)
    assert (slopes <= 1e-12).all()
    assert (np.diff(slopes) >= -1e-9).all()
    assert all(curve.at(k) <= lost + 1e-9 for k, lost in zip(keys, losses, strict=True))
    assert (curve.keys[0], curve.keys[-1]) == (2, 20)


def test_windows_of_as_many_keys_are_one_point():
    """As in a layer that sees few keys, whose windows of small shares are all rounded up to one."""
    curve = Curve.of([1, 1, 2, 4, 4, 16], [3.0, 1.0, 1.5, 0.5, 0.7, 0.2], 16)
    alone = Curve.of([1, 2, 4], [2.0, 1.5, 0.6], 16)
    np.testing.assert_allclose(curve.keys, alone.keys)
    np.testing.assert_allclose(curve.loss, alone.loss)


def test_a_unit_of_more_heads_pays_for_each():
    steep, flat = Curve.of([1], [10.0], 11), Curve.of([1], [6.0], 11)  # a key gains 1 and .6, over five heads and one
    np.testing.assert_allclose(by_gain([steep, flat], [5, 1], (5 + 11) / 6), [1, 11])
    np.testing.assert_allclose(by_gain([steep, flat], [1, 1], 6), [11, 1])


def test_units_alike_are_served_to_the_total_and_beyond_the_bounds_nothing_is():
    curves = [Curve.of([10, 50], [1.0, 0.1], 100)] * 3
    assert bounds(curves, [1, 1, 1]) == (10, 100)
    assert by_gain(curves, [1, 1, 1], 50).tolist() == [50, 50, 50]
    for mean in (9, 101, np.nan):
        with pytest.raises(ValueError, match="not within 10 and 100"):
            by_gain(curves, [1, 1, 1], mean)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.1, 50), min_size=2, max_size=6), st.floats(5, 40))
def test_a_shape_is_met_within_its_bounds(shape, mean):
    shape_U, least_U, most_U = np.array(shape), np.full(len(shape), 4.0), np.full(len(shape), 60.0)
    keys = in_proportion(shape_U, least_U, most_U, [1] * len(shape), mean)
    assert keys.mean() == pytest.approx(mean, rel=1e-6)
    assert ((keys >= 4) & (keys <= 60)).all()
    free = (keys > 4.001) & (keys < 59.999)
    ratio = (keys / shape_U)[free]
    assert np.ptp(ratio) <= 1e-6 * ratio.max() if free.any() else True


def test_a_pyramid_falls_evenly_and_keeps_its_mean():
    keys = pyramid(30, 100, 5)
    assert keys.mean() == pytest.approx(100)
    assert keys[0] / keys[-1] == pytest.approx(PYRAMID)
    np.testing.assert_allclose(np.diff(keys), np.diff(keys)[0])
    assert pyramid(30, 100, 40)[-1] == 40
    assert pyramid(30, 100, 400).tolist() == [100] * 30
