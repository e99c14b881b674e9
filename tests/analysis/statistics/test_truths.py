"""Which law is nearer: heads that truly follow one of two laws, and slopes between neighbouring lengths."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import settings
from analysis.statistics import truths
from analysis.statistics.laws import LAWS
from tests.analysis.synthetic import crossed

SETTINGS = replace(settings.fits(settings.analysis()), etas=(0.1,), resamples=100)
LENGTHS = (512, 768, 1152, 1728, 2592, 3888, 5632, 8192)


def rows_of(k_of_n, heads=60, noise=0.2, shared=0.0, seed=0, lengths=LENGTHS):
    """Rows of heads whose k is a function of n and of the head's own exponent, with noise of each document and head."""
    exponents = np.random.default_rng([seed, 1]).uniform(0.3, 0.7, heads)
    rows = crossed(0 * exponents, lengths=lengths, clusters=12, shared=shared, own=noise, seed=seed)
    rows["k_min_0.1"] *= k_of_n(rows["n"].to_numpy(float), exponents[rows["head"]])
    keys = {"label": "M", "kind": "real", "design": "d", "s": np.nan, "sigma": np.nan}
    return rows.assign(cluster=rows["sample"].astype(str), **keys)


def power(n, exponent):
    return 20 * (n / 512) ** exponent


def logarithm(n, exponent):
    return 20 * (1 + exponent * np.log(n / 512))


@pytest.mark.parametrize(("truth", "other", "law"), [("power", "log", power), ("log", "power", logarithm)])
def test_the_true_law_is_the_nearer_one_although_aicc_names_others_for_many_heads(truth, other, law):
    every = list(truths.trials(rows_of(law), SETTINGS))
    table = truths.summary(every, SETTINGS).set_index("law")
    assert set(table.index) == {law.name for law in LAWS}
    assert table["share"].sum() == pytest.approx(1)
    assert table[f"share_if_{truth}"].sum() == pytest.approx(1)
    first = table.iloc[0]
    assert first[f"distance_{truth}"] < 0.15 < first[f"distance_{other}"]
    assert first[f"rejects_{truth}"] < 0.15 < first[f"rejects_{other}"]
    assert first[f"farther_than_{truth}"] < 0.95
    assert first[f"farther_than_{other}"] > 0.95
    # what AICc says by itself: the true law wins far from all of its heads, and as often as the simulation foretells
    assert table.loc[truth, "share"] < 0.9
    low, high = table.loc[truth, [f"share_if_{truth}_low", f"share_if_{truth}_high"]]
    assert low <= table.loc[truth, "share"] <= high


def test_p_values_of_a_true_law_are_spread_evenly_and_a_law_of_another_shape_misfits():
    heads = truths.by_head(list(truths.trials(rows_of(power, heads=150), SETTINGS)))
    for name in ("p_power", "misfit_power"):
        assert heads[name].between(0, 1).all()
        assert abs((heads[name] < 0.5).mean() - 0.5) < 0.17, name
    bent = rows_of(lambda n, c: 20 * (n / 512) ** (c + 0.4 * np.sin(4 * np.log(n / 512))), heads=30, noise=0.05)
    summary = truths.summary(list(truths.trials(bent, SETTINGS)), SETTINGS).iloc[0]
    assert summary["misfits_power"] > 0.9
    assert summary["misfits_log"] > 0.9


def test_a_single_document_shows_no_noise_and_is_not_judged():
    rows = rows_of(power)
    assert list(truths.trials(rows[rows["sample"] == 0], SETTINGS)) == []
    assert truths.by_head([]).empty
    assert truths.summary([], SETTINGS).empty


def test_local_exponents_are_level_for_a_power_law_and_fall_for_a_logarithm():
    lines = truths.local_exponents(rows_of(power, heads=30, noise=0.0), SETTINGS)
    heads = lines[lines["scope"] == "head"].pivot_table("exponent", "head", "n_from")
    exponents = np.random.default_rng([0, 1]).uniform(0.3, 0.7, 30)
    np.testing.assert_allclose(heads, np.tile(exponents[:, None], (1, 3)), rtol=1e-6)
    over = lines[lines["scope"] == "heads"]
    assert over["n_from"].tolist() == [512, 1152, 2592]  # each at least twice the one before
    assert (over["n_to"] >= 2 * over["n_from"]).all()
    np.testing.assert_allclose(over["exponent"], np.median(exponents), rtol=1e-6)
    falls = truths.local_exponents(rows_of(logarithm, heads=30), SETTINGS).query("scope == 'heads'")
    assert falls["less"].iloc[-1] < 0
    assert falls["less_high"].iloc[-1] < 0


def test_bands_of_local_exponents_cover_those_of_a_population():
    hits, trials, truth = [], 60, 0.5  # the median of the population
    for trial in range(1, trials + 1):
        rows = rows_of(power, heads=25, shared=0.1, seed=trial, lengths=(512, 1024, 2048))
        line = truths.local_exponents(rows, SETTINGS).query("scope == 'heads'").iloc[0]
        hits.append(line["exponent_low"] <= truth <= line["exponent_high"])
    assert np.mean(hits) >= 0.88


def test_one_length_step_has_no_change_to_show():
    rows = rows_of(power, lengths=(512, 700, 900))
    assert truths.local_exponents(rows, SETTINGS).empty
    assert isinstance(truths.local_exponents(rows, SETTINGS), pd.DataFrame)
