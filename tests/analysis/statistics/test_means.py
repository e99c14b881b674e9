"""The two means of the heads: what they are, how sure, and which layers drive them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.statistics import means
from analysis.statistics.laws import LAWS as EVERY_LAW
from tests.analysis.statistics.test_fit import SETTINGS
from tests.analysis.synthetic import crossed, law, write_run

LENGTHS = (512, 1024, 2048, 4096, 8192)


def read(tmp_path, rows):
    write_run(tmp_path, "r", "Model", rows, source="smollm2")
    return analysis.load(tmp_path)[0]


def two_layers(tmp_path):
    """Three heads that need sqrt(n) keys, and in layer 1 one that needs n / 4, to within 1%."""
    few = law(np.sqrt, lengths=LENGTHS, heads=3, noise=0.01)
    many = law(lambda n: n / 4, lengths=LENGTHS, heads=1, noise=0.01, seed=1).assign(layer=1)
    return read(tmp_path, pd.concat([few, many]))


def test_each_mean_is_the_one_that_it_is_called(tmp_path):
    every = list(means.means_of(two_layers(tmp_path), 0.1, SETTINGS))
    table = means.data(every, SETTINGS).set_index(["mean", "length"])["k"]
    for n in LENGTHS:
        assert table["mean window", n] == pytest.approx((3 * np.sqrt(n) + n / 4) / 4, rel=0.02)
        assert table["typical head", n] == pytest.approx((np.sqrt(n) ** 3 * n / 4) ** 0.25, rel=0.02)


def test_the_layer_that_needs_most_is_named_and_left_out(tmp_path):
    table = means.laws(list(means.means_of(two_layers(tmp_path), 0.1, SETTINGS)), SETTINGS)
    power = table[table["law"] == "power"].set_index(["mean", "scope"])
    assert set(power.loc["mean window"].index) == {"all heads", "without layer 1", "layer 0", "layer 1"}
    assert set(power.loc["typical head"].index) == {"all heads", "without layer 1"}
    share = 8192 / 4 / (3 * np.sqrt(8192) + 8192 / 4)
    assert power.loc[("mean window", "layer 1"), "share"] == pytest.approx(share, abs=0.01)
    assert power.loc[("mean window", "without layer 1"), "share"] == pytest.approx(1 - share, abs=0.01)
    assert power.loc[("mean window", "layer 1"), "C"] == pytest.approx(1, abs=0.02)
    assert power.loc[("mean window", "without layer 1"), "C"] == pytest.approx(0.5, abs=0.02)
    assert power.loc[("mean window", "all heads"), "C"] > 0.8 > power.loc[("typical head", "all heads"), "C"]
    assert list(power.loc["mean window"].sort_index()["heads"]) == [4, 3, 1, 3]


def test_intervals_of_the_mean_window_cover_the_truth():
    """Heads drawn from a population, and what a cluster gives all of them: 120 experiments."""
    settings, hits, trials = replace(SETTINGS, resamples=200), 0, 120
    for trial in range(trials):
        draw = np.random.default_rng(trial)
        rows = crossed(draw.normal(0.5, 0.1, 30), clusters=12, shared=0.2, own=0.2, seed=trial)
        rows = rows.assign(
            label="Model", kind="real", cluster=rows["sample"].astype(str), design="one", s=np.nan, sigma=np.nan
        )
        curves = next(means.curves_of(rows, settings))
        points = curves.mean_window(settings)
        low, high = means.bootstrap.combined_interval(points.y, points.sources, lambda y: y, settings.confidence)
        # E exp(level + C ln n + noise) of the population, at the first length
        x = np.log(LENGTHS[0])
        truth = 1 + 0.5 + 0.5 * x + (0.1 * x) ** 2 / 2 + (0.2**2 + 0.2**2) / 2
        hits += bool(low[0, 0] <= truth <= high[0, 0])
    # a mean of few lognormal heads, a deviation of 1.2 in ln k, misses its population's more often than 5%
    assert 0.82 <= hits / trials <= 0.99


def test_laws_are_drawn_beyond_the_data_and_within_what_can_be_kept(tmp_path):
    rows = read(tmp_path, law(lambda n: 3 * n**0.6, lengths=LENGTHS, heads=3, noise=0.05))
    table = means.foreseen(list(means.means_of(rows, 0.1, SETTINGS)), SETTINGS, 10)
    power = table[(table["law"] == "power") & (table["mean"] == "mean window")]
    assert power["n"].max() == pytest.approx(10 * 8192)
    assert power.loc[power["inside"], "n"].max() <= 8192 * 1.001
    np.testing.assert_allclose(power["k"], 3 * power["n"] ** 0.6, rtol=0.1)
    root = table[(table["law"] == "root") & (table["mean"] == "mean window")]
    middle = np.sqrt(512 * 8192)  # where the square root meets the points
    np.testing.assert_allclose(root["k"], 3 * middle**0.6 * np.sqrt(root["n"] / middle), rtol=0.1)
    assert set(table["law"]) == {*(law.name for law in EVERY_LAW), "root"}  # these rows have no entropy
    table = table[table["law"] != "root"]
    assert (table["k_low"] <= table["k"] * (1 + 1e-9)).all()
    assert (table["k"] <= table["k_high"] * (1 + 1e-9)).all()
    assert ((table["k_low"] >= 1) & (table["k_high"] <= table["n"] * (1 + 1e-9))).all()


def test_the_growth_of_the_entropy_is_drawn_beside_them():
    rows = crossed(np.full(3, 0.5), own=0.02, shared=0.02).assign(p_max=0.1, log_p_variance=1.0, label="Model")
    rows = rows.assign(kind="real", cluster=rows["sample"].astype(str), design="one", s=np.nan, sigma=np.nan)
    rows["entropy"] = 1 + (0.2 + 0.1 * rows["head"]) * np.log(rows["n"])
    table = means.foreseen(list(means.means_of(rows, 0.1, SETTINGS)), SETTINGS, 10)
    entropy = table[(table["law"] == "entropy") & (table["mean"] == "typical head")]
    np.testing.assert_allclose(entropy["k"], np.e * entropy["n"] ** 0.3)
