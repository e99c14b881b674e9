"""The least cost with the error held at every length: sources where growth truly pays, and where it cannot."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics import tasks
from analysis.statistics.held_error import ErrorCurves, held, held_in_task
from tests.analysis.statistics.test_equal_cost import SETTINGS, of_label

LENGTHS = (512, 1024, 2048, 4096, 8192)
EXPONENTS = tuple(np.linspace(0, 1, 51))
MIX = {"log-uniform": 1.0}


def curves(needed, clusters=8, noise=0.05, seed=0):
    """Error 0.1 needed(n) / k, with one factor per sample and length, on a grid of windows."""
    draw = np.random.default_rng(seed)
    n = np.array(LENGTHS, float)
    knots = [np.append(np.geomspace(1, m / 2, 60), m) for m in n]
    factors = np.exp(noise * draw.normal(size=(len(n), clusters, 1)))
    errors = [factors[i] * 0.1 * needed(m) / k for i, (m, k) in enumerate(zip(n, knots, strict=True))]
    return ErrorCurves(n, knots, [np.where(k < m, e, 0.0) for m, k, e in zip(n, knots, errors, strict=True)])


def judged(source, taus=(0.1, 0.05), label="made up"):
    return held(source, taus, MIX, EXPONENTS, SETTINGS, label).set_index(["tau", "rule"])


def test_where_the_keys_needed_grow_a_power_is_cheaper_by_what_it_saves_at_short_lengths():
    table = judged(curves(lambda n: n**0.5, noise=0.0))
    n = np.array(LENGTHS, float)
    for tau in (0.1, 0.05):
        power, fixed, log = (table.loc[(tau, rule)] for rule in ("power", "fixed", "log"))
        assert power["parameter"] == pytest.approx(0.5, abs=0.021)
        assert power["ratio_fixed"] == pytest.approx(np.mean((n / n[-1]) ** 0.5), rel=0.02)
        assert log["ratio_fixed"] == pytest.approx(np.mean(np.log(n) / np.log(n[-1])), rel=0.01)
        assert power["ratio_log"] == pytest.approx(power["ratio_fixed"] / log["ratio_fixed"])
        assert fixed["cost"] == pytest.approx(0.1 * n[-1] ** 0.5 / tau, rel=0.02)
        assert max(line["worst"] for line in (power, fixed, log)) == pytest.approx(tau, rel=0.02)


def test_noise_leaves_the_saving_and_opens_the_interval():
    """The worst of noisy lengths makes the power dearer: its interval errs to that side, if to any."""
    truth = np.mean((np.array(LENGTHS) / LENGTHS[-1]) ** 0.5)
    tables = [judged(curves(lambda n: n**0.5, seed=i), (0.1,), str(i)).loc[(0.1, "power")] for i in range(60)]
    ratios = pd.DataFrame(tables)[["ratio_fixed", "ratio_fixed_low", "ratio_fixed_high"]].astype(float)
    assert 1 <= ratios["ratio_fixed"].mean() / truth < 1.04
    assert ((ratios["ratio_fixed_low"] <= truth) & (truth <= ratios["ratio_fixed_high"])).mean() >= 0.85
    assert (truth <= ratios["ratio_fixed_high"]).mean() >= 0.97
    assert (ratios["ratio_fixed_high"] < 1).all()


def test_where_every_length_needs_as_many_keys_growth_saves_nothing():
    exact = judged(curves(lambda n: 40.0, noise=0.0)).loc[(0.1, "power")]
    assert exact["parameter"] == 0
    assert exact["ratio_fixed"] == exact["ratio_fixed_low"] == 1
    tables = [judged(curves(lambda n: 40.0, seed=i), label=str(i)) for i in range(30)]
    savings = [table.loc[(0.1, "power"), "ratio_fixed"] for table in tables]
    assert np.mean(savings) >= 1, "the C that saves on one half of the samples costs on all"
    assert not any(table.loc[(0.1, "power"), "ratio_fixed_high"] < 1 for table in tables)


def test_families_are_compared_at_equal_error_not_as_they_were_set():
    tables = [judged(curves(lambda n: n**0.5, noise=0.3, clusters=4, seed=i), (0.1,)) for i in range(20)]
    power, fixed = (
        pd.DataFrame([table.loc[(0.1, rule)] for table in tables]).reset_index(drop=True) for rule in ("power", "fixed")
    )
    assert (power["worst"] > fixed["worst"]).mean() > 0.6, "as they were set, the power breaks its promise more often"
    assert (power["cost_held"] > power["cost"]).mean() > 0.5
    assert power["ratio_fixed"].mean() > (power["cost"] / fixed["cost"]).mean()


def test_a_tau_that_no_window_reaches_is_said_to_be_short():
    source = curves(lambda n: n**0.5, noise=0.0)
    cut = ErrorCurves(source.n, [k[:-1] for k in source.knots], [e[:, :-1] for e in source.errors])
    table = judged(cut, taus=(0.1, 1e-5))
    assert not table.loc[(0.1, "power"), "short"]
    line = table.loc[(1e-5, "power")]
    assert line["short"]
    assert np.isnan(line[["ratio_fixed", "ratio_fixed_low", "worst", "cost"]].astype(float)).all()


def test_keys_needed_are_those_from_which_the_error_stays_low():
    k = np.array([1.0, 2, 4, 8, 16])
    error = np.array([[0.4, 0.05, 0.2, 0.1, 0.0]])
    source = ErrorCurves(np.array([16.0]), [k], [error])
    one = source.means(np.ones((1, 1)))
    assert source.needed(one, 0.15)[0, 0] == pytest.approx(np.exp(np.log(4) + 0.5 * np.log(2)))
    assert source.needed(one, 0.5)[0, 0] == 1
    assert source.needed(one, 0.0)[0, 0] == pytest.approx(16)


def test_rows_are_read_off_their_grid():
    lines = []
    for n in LENGTHS[:3]:
        for head, sample in np.ndindex(2, 4):
            facts = {"layer": 0, "head": head, "sample": sample, "length": n, "rule": "grid", "scale": 1.0}
            for k in (1, 4, 16, 64, 256):
                lost = 1 / k if k < n else 0.0
                lines.append(facts | {"parameter": float(k), "k": k, "dropped_mass": lost * (1 + head)})
    frame = of_label(pd.DataFrame(lines).assign(output_error_renormalised=0.0))
    source = ErrorCurves.of_rows(frame)
    assert source.clusters == 4
    np.testing.assert_allclose(source.n, LENGTHS[:3])
    np.testing.assert_allclose(source.errors[0], np.tile([1.5, 1.5 / 4, 1.5 / 16, 1.5 / 64, 1.5 / 256, 0], (4, 1)))
    assert ErrorCurves.of_rows(frame[frame["length"] == 512]) is None


def losses(needed, share=1.0, samples=4):
    """Loss above dense needed(n) / k under windows of three rules; rows see `share` of the context."""
    lines = []
    for sample in range(samples):
        for n in LENGTHS:
            base = {"label": "m", "phase": "decode", "run": "r", "sample": sample, "length": n}
            lines.append(base | {"rule": "dense", "keys": share * n, "loss": 2.0})
            for size in (8, 16, 32, 64, 128, 256):
                for rule, parameter, scale, k in (
                    ("fixed", size, 1.0, size),
                    ("power", 0.5, size, size * (n / 2048) ** 0.5),
                    ("linear", size / 2048, 1.0, size * n / 2048),
                ):
                    line = {"rule": rule, "parameter": parameter, "scale": scale, "keys": float(k)}
                    lines.append(base | line | {"loss": 2.0 + needed(n) / k})
    return pd.DataFrame(lines)


def in_task(table, taus=(0.05,)):
    told = tasks.differences(table, "loss", ["length"])
    return held_in_task(table, told, taus, MIX, EXPONENTS, SETTINGS)


@pytest.mark.parametrize(("needed", "exponent"), [(lambda n: n**0.5 / 20, 0.5), (lambda n: 2.0, 0.0)])
def test_what_a_model_loses_lies_on_one_curve_per_length_whichever_rule_kept_the_keys(needed, exponent):
    table = in_task(losses(needed))
    (power,) = table[table["rule"] == "power"].to_dict("records")
    assert power["parameter"] == pytest.approx(exponent, abs=0.041)
    truth = np.mean((np.array(LENGTHS) / LENGTHS[-1]) ** exponent)
    assert power["ratio_fixed"] == pytest.approx(truth, rel=0.03)
    assert (power["label"], power["phase"], power["clusters"]) == ("m", "decode", 4)


def test_a_model_whose_heads_see_unequal_keys_or_with_one_sample_is_not_judged():
    assert in_task(losses(lambda n: 2.0, share=0.4)).empty
    assert in_task(losses(lambda n: 2.0, samples=1)).empty
    table = losses(lambda n: 2.0)
    missing = (table["sample"] == 0) & (table["length"] == 512) & (table["rule"] == "fixed")
    assert set(in_task(table[~missing])["clusters"]) == {3}
