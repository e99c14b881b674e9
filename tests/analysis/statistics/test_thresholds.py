"""Thresholds in 1 / n against brute force, and on rows whose law is known."""

import numpy as np
import pytest

from analysis.statistics.fit import Settings
from analysis.statistics.thresholds import Contest, at_each_factor, held, laws
from tests.analysis.synthetic import row_rules

SETTINGS = Settings(
    etas=(0.1,), seed=0, resamples=50, confidence=0.95, min_lengths=3, at_one=0.5, at_n=0.1, clear_lead=2.0
)
LENGTHS = (128, 256, 512, 1024)


def rows_of(logits_of, rows=6, samples=4, heads=3, seed=0):
    """Return sorted probabilities (heads, samples, rows, n) of each length."""
    draw = np.random.default_rng(seed)
    result = {}
    for n in LENGTHS:
        p = np.exp(logits_of(draw, (heads, samples, rows, n)))
        result[n] = -np.sort(-p / p.sum(-1, keepdims=True))
    return result


def of_label(rows):
    return row_rules(rows).assign(
        n=lambda line: line["length"], cluster=lambda line: "run:" + line["sample"].astype(str)
    )


def mixed(draw, shape):
    return draw.normal(size=shape) * draw.uniform(1.5, 3, size=(*shape[:-1], 1))


def iid(draw, shape):
    return draw.normal(size=shape)


def frozen(draw, shape):
    return np.broadcast_to(-2.5 * np.log(np.arange(1, shape[-1] + 1)), shape) + 0.01 * draw.normal(size=shape)


@pytest.fixture(scope="module")
def contest():
    return Contest.of(of_label(rows_of(mixed)), "m", SETTINGS)


def test_within_a_length_the_threshold_is_the_floor_and_over_all_lengths_none_is_below_it(contest):
    table = at_each_factor(contest, SETTINGS)
    own = table[(table["rule"] == "relative_threshold") & table["length"].notna()]
    assert len(own) > 20
    np.testing.assert_allclose(own["ratio"].dropna(), 1, atol=0.01)
    over = table[table["length"].isna() & table["ratio"].notna()]
    assert (over["ratio"] > 0.995).all()
    assert (over.loc[over["rule"] == "peak_threshold", "ratio"] > 1.02).any()
    for others in ("fixed_dropped_mass", "top_p_dropped_mass"):
        for floor in (own, over[over["rule"] == "threshold"]):
            beside = floor.dropna(subset=[others])
            assert len(beside) > 10
            assert (beside["dropped_mass"] < 1.01 * beside[others]).all()


@pytest.mark.parametrize("lost", [0.3, 0.1])
def test_the_floor_over_all_lengths_is_the_least_number_of_keys(lost):
    rows = rows_of(mixed)
    contest = Contest.of(of_label(rows), "m", SETTINGS)
    # a probability weighs the same in each row, a row as much as there are lengths and rows of its length
    every = -np.sort(-np.concatenate([p.ravel() for p in rows.values()]))
    count = sum(p[..., 0].size for p in rows.values())
    exact = np.interp(1 - lost, np.cumsum(every) / count, np.arange(1, len(every) + 1) / count)
    table = held(contest, [lost], SETTINGS)
    k = table[table["length"].isna()].set_index("rule")["k"]
    assert k["threshold"] == pytest.approx(exact, rel=0.02)
    assert k["threshold"] == k.min()


def test_one_factor_holds_where_rows_are_drawn_alike_and_a_probability_where_few_keys_have_all():
    alike = laws(Contest.of(of_label(rows_of(iid)), "m", SETTINGS), [0.2], [0.2], SETTINGS)
    alike = alike.set_index(["rule", "held", "at", "of"])["exponent"]
    assert alike["relative_threshold", "parameter", 1.0, "keys"] == pytest.approx(1, abs=0.03)
    assert alike["relative_threshold", "parameter", 1.0, "dropped_mass"] == pytest.approx(0, abs=0.05)
    assert alike["relative_threshold", "share", 0.2, "threshold"] == pytest.approx(-1, abs=0.03)
    assert alike["threshold", "dropped_mass", 0.2, "threshold"] == pytest.approx(-1, abs=0.05)
    few = laws(Contest.of(of_label(rows_of(frozen)), "m", SETTINGS), [0.05], [], SETTINGS)
    few = few.set_index(["rule", "held", "at", "of"])["exponent"]
    assert few["threshold", "dropped_mass", 0.05, "threshold"] == pytest.approx(0, abs=0.1)


def test_labels_without_thresholds_in_one_over_n_are_left_out():
    windows = of_label(rows_of(iid))
    assert Contest.of(windows[windows["rule"] != "peak_threshold"], "m", SETTINGS) is None
    assert Contest.of(windows[windows["sample"] == 0], "m", SETTINGS) is None
