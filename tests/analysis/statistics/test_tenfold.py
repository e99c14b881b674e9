"""Forecasts of a context ten times as long, on curves whose law is known."""

import numpy as np
import pandas as pd
import pytest

from analysis import settings
from analysis.statistics.tenfold import HEAD, LAYER, TOTAL, foretell_tenfold
from tests.analysis.synthetic import crossed

LENGTHS = (64, 128, 256, 512, 8192)
HOW = settings.fits(settings.analysis())


def rows_of(label, exponents, seed=0, bend=0.0, **noise):
    rows = crossed(exponents, lengths=LENGTHS, seed=seed, **noise)
    far = rows["length"] == LENGTHS[-1]
    for name in (name for name in rows if name.startswith("k_min")):
        rows.loc[far, name] *= np.exp(bend)
        rows[name] = rows[name].clip(upper=rows["n"])
    kept = {"kind": "real", "s": np.nan, "sigma": np.nan, "label": label, "design": label, "seed": 0, "run": label}
    return rows.assign(cluster=rows["sample"], layer=rows["head"] // 4, **kept)


def foretold(*parts, calibrating="one"):
    return foretell_tenfold(pd.concat(parts, ignore_index=True), 0.1, HOW, 0.1, 0.9, calibrating)


def of(summary, label, scope, forecaster, value):
    line = summary[(summary["label"] == label) & (summary["scope"] == scope) & (summary["forecaster"] == forecaster)]
    return line[value].item()


EXPONENTS = np.linspace(0.3, 0.7, 40)


def test_a_power_law_is_foretold_of_heads_layers_and_in_total():
    table, summary = foretold(rows_of("one", EXPONENTS, own=0.02, shared=0.02))
    for scope, least, most in ((HEAD, 30, 40), (LAYER, 10, 10), (TOTAL, 1, 1)):  # some heads need all keys when short
        assert least <= of(summary, "one", scope, "power", "curves") <= most
        assert of(summary, "one", scope, "power", "absolute_error") < 0.05
        assert of(summary, "one", scope, "power", "total_ratio") == pytest.approx(1, abs=0.05)
        assert of(summary, "one", scope, "log", "total_ratio") < 0.7  # a logarithm foretells too few
    heads = table[(table["scope"] == HEAD) & (table["forecaster"] == "power")]
    layers = table[(table["scope"] == LAYER) & (table["forecaster"] == "power")]
    np.testing.assert_allclose(heads.groupby("layer")["k_foretold"].sum(), layers.set_index("layer")["k_foretold"])
    np.testing.assert_allclose(heads["k"].sum(), layers["k"].sum())
    assert (heads["low"] < heads["k_foretold"]).all()
    assert (heads["k_foretold"] < heads["high"]).all()


def test_intervals_hold_another_text_of_the_same_kind_and_not_a_law_that_bends():
    same, bent = rows_of("same", EXPONENTS, seed=1), rows_of("bent", EXPONENTS, seed=2, bend=-2.5)
    _, summary = foretold(rows_of("one", EXPONENTS), same, bent)
    assert of(summary, "one", HEAD, "power", "inside") > 0.75
    assert of(summary, "same", HEAD, "power", "inside") > 0.7
    assert of(summary, "bent", HEAD, "power", "inside") < 0.4


def test_too_few_heads_promise_no_level():
    table, summary = foretold(rows_of("one", EXPONENTS[:4]))
    assert np.isnan(of(summary, "one", HEAD, "power", "inside"))
    assert table["inside"].isna().all()


def test_the_label_with_most_heads_calibrates_where_the_named_one_is_missing():
    few, many = rows_of("few", EXPONENTS[:12]), rows_of("many", EXPONENTS, seed=3)
    _, summary = foretold(few, many, calibrating="one")
    _, named = foretold(few, many, calibrating="many")
    assert set(summary["calibrated_by"]) == {"many"}
    pd.testing.assert_frame_equal(summary, named)
    assert of(summary, "few", HEAD, "power", "inside") > 0.5


@pytest.mark.parametrize("lacking", ["log_p_variance", "entropy"])
def test_a_label_without_sums_calibrates_every_other_forecaster(lacking):
    without = rows_of("one", EXPONENTS)
    some = rows_of("other", EXPONENTS[:12], seed=1)
    some = some.assign(entropy=np.log(some["n"]) / 2, p_max=0.1, log_p_variance=1.0)
    if lacking == "log_p_variance":  # of rows beside a learned sink
        without = without.assign(entropy=1.0, p_max=0.1)
    _, summary = foretold(without, some)
    assert set(summary["calibrated_by"]) == {"one"}
    forecasters = summary.groupby("label")["forecaster"].agg(set)
    assert forecasters["one"] == forecasters["other"] == {"power", "log", "power and log"}
    _, turned = foretold(without, some, calibrating="other")
    forecasters = turned.groupby("label")["forecaster"].agg(set)
    assert forecasters["other"] == {*forecasters["one"], "sums"}
