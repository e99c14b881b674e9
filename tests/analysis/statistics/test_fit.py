from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.statistics import fit
from tests.analysis.synthetic import crossed, law, write_run

SETTINGS = fit.Settings(
    etas=(0.1,), seed=0, resamples=400, confidence=0.95, min_lengths=3, at_one=0.5, at_n=0.1, clear_lead=2.0
)


@pytest.fixture
def loaded(tmp_path):
    def load(rows, **keys):
        write_run(tmp_path, "r", "Model", rows, source="smollm2", **keys)
        return analysis.load(tmp_path)[0]

    return load


def of(table, name):
    return table[table["law"] == name]


def test_a_power_law_is_recovered_and_its_exponent_covered(loaded):
    """200 heads are 200 repetitions, for each head's noise is its own."""
    heads = fit.fit_heads(loaded(law(lambda n: 3 * n**0.6, clusters=12, heads=200, noise=0.2)), SETTINGS)
    power = of(heads, "power")
    assert 0.91 <= ((power["C_low"] <= 0.6) & (power["C_high"] >= 0.6)).mean() <= 0.98
    assert power["C"].mean() == pytest.approx(0.6, abs=0.01)
    assert set(power["clusters"]) == {12}


def test_each_law_wins_on_its_own_data(loaded):
    truths = {
        "constant": lambda n: 50 + 0 * n,
        "log": lambda n: -100 + 30 * np.log(n),
        "power": lambda n: 3 * n**0.6,
        "linear": lambda n: 0.2 * n,
    }
    for name, truth in truths.items():
        heads = fit.fit_heads(loaded(law(truth, clusters=12, heads=20, noise=0.01)), SETTINGS)
        shares = fit.share_of_laws(heads, 2.0).set_index("law")
        assert shares["won"].idxmax() == name
        assert shares.loc[name, "share"] >= 0.7
        assert shares["won"].sum() == 20


def test_a_power_law_seldom_wins_on_logarithmic_data(loaded):
    rows = law(lambda n: -60 + 20 * np.log(n), clusters=12, heads=200, noise=0.05)
    shares = fit.share_of_laws(fit.fit_heads(loaded(rows), SETTINGS), 2.0).set_index("law")
    assert shares.loc["power", "share"] < 0.1


def test_two_runs_give_identical_tables(loaded):
    rows = loaded(law(np.sqrt, clusters=4, heads=3))
    for make in (fit.fit_heads, fit.fit_pooled):
        pd.testing.assert_frame_equal(make(rows, SETTINGS), make(rows.sample(frac=1, random_state=1), SETTINGS))


def test_the_pooled_fit_is_that_of_the_typical_head(loaded):
    rows = law(lambda n: n**0.5, clusters=6, heads=30, noise=0.0)
    exponent = 0.5 + 0.01 * (rows["head"] - 14.5)
    rows["k_min_0.1"] = rows["n"] ** exponent
    pooled = of(fit.fit_pooled(loaded(rows), SETTINGS), "power").iloc[0]
    assert pooled["C"] == pytest.approx(0.5)
    assert pooled["heads"] == 30
    # all the spread is between heads, and resampling them has to show it: sd 0.0866 / sqrt(30)
    assert pooled["C_high"] - pooled["C_low"] > 2 * 1.96 * 0.0866 / np.sqrt(30) * 0.9


@pytest.mark.long
@pytest.mark.parametrize(
    ("spread", "shared", "own"),
    [
        pytest.param(0.15, 0.1, 0.3, id="heads differ most"),
        pytest.param(0.02, 0.5, 0.1, id="documents differ most"),
        pytest.param(0.1, 0.1, 0.3, id="both count"),
        pytest.param(0.0, 0.0, 0.3, id="only noise"),
    ],
)
def test_the_pooled_exponent_is_that_of_the_population_and_covered(spread, shared, own):
    """200 repetitions of 40 heads, drawn from a population of mean exponent 0.6, reading 12 documents.

    Labels of one table are fitted apart, so the repetitions are labels.
    """
    draw = np.random.default_rng(11)
    repetitions = []
    for i in range(200):
        rows = crossed(0.6 + spread * draw.normal(size=40), clusters=12, shared=shared, own=own, seed=i)
        repetitions.append(rows.assign(label=f"population {i}"))
    joined = pd.concat(repetitions, ignore_index=True).assign(kind="real", design="same", s=np.nan, sigma=np.nan)
    joined["cluster"] = joined["sample"].astype(str)
    joined = joined.astype(dict.fromkeys(("label", "kind", "design", "variant", "cluster"), "category"))
    pooled = of(fit.fit_pooled(joined, replace(SETTINGS, resamples=200)), "power")
    assert len(pooled) == 200
    assert pooled["C"].mean() == pytest.approx(0.6, abs=0.01)
    assert 0.91 <= ((pooled["C_low"] <= 0.6) & (pooled["C_high"] >= 0.6)).mean() <= 0.98


def test_a_single_sample_has_no_interval(loaded):
    power = of(fit.fit_heads(loaded(law(np.sqrt, clusters=1)), SETTINGS), "power").iloc[0]
    assert power["C"] == pytest.approx(0.5, abs=0.1)
    assert np.isnan(power["C_low"])
    assert np.isnan(power["C_high"])


def test_lengths_at_the_ends_are_left_out(loaded):
    rows = law(lambda n: n**0.5, clusters=2, noise=0.0, lengths=(256, 512, 1024, 2048, 4096, 8192))
    rows["k_min_0.1"] = rows["k_min_0.1"].where(rows["length"] > 256, 1.0).where(rows["length"] > 512, rows["n"])
    power = of(fit.fit_heads(loaded(rows), SETTINGS), "power").iloc[0]
    assert (power["lengths"], power["censored"]) == (4, 2)
    assert power["C"] == pytest.approx(0.5)


def test_too_few_lengths_give_a_reason_and_no_fit(loaded):
    heads = fit.fit_heads(loaded(law(np.sqrt, clusters=3, lengths=(512, 1024))), SETTINGS)
    assert heads[["a", "b", "C", "aicc"]].isna().all(axis=None)
    assert heads["winner"].isna().all()
    assert heads["reason"].str.contains("fewer than 3 lengths").all()


def test_a_head_whose_rows_need_one_key_at_every_length_is_constant(loaded):
    rows = law(np.sqrt, clusters=12, heads=2, noise=0.02)
    single = (rows["head"] == 0) & (rows["sample"] > 0)
    rows["k_min_0.1"] = rows["k_min_0.1"].where(rows["head"] != 0, 2.0).where(~single, 1.0)
    heads = fit.fit_heads(loaded(rows), SETTINGS)
    one = heads[heads["head"] == 0].set_index("law")
    assert one.index[one["winner"].astype(bool)].tolist() == ["constant"]
    assert 1 <= one.loc["constant", "a"] < 2
    assert one.loc["constant", "a_low"] <= one.loc["constant", "a"] <= one.loc["constant", "a_high"]
    assert one["reason"].str.contains("one key").all()
    assert one["C"].isna().all()
    shares = fit.share_of_laws(heads, 2.0).set_index("law")
    assert shares.loc["constant", ["won", "clearly"]].tolist() == [1, 1]
    assert (shares["ranked"] == 2).all()
    # two lengths say nothing of growth
    short = fit.fit_heads(loaded(rows[rows["length"] < 2048]), SETTINGS)
    assert short["winner"].isna().all()


def test_a_law_that_aicc_cannot_rank_is_reported_and_no_winner_named(loaded):
    heads = fit.fit_heads(loaded(law(np.sqrt, clusters=3, lengths=(512, 1024, 2048, 4096))), SETTINGS)
    assert of(heads, "power")["C"].notna().all()
    assert of(heads, "power")["reason"].str.contains("rank").all()
    assert of(heads, "linear")["aicc"].notna().all()
    assert heads["winner"].isna().all()
    shares = fit.share_of_laws(heads, 2.0)
    assert (shares["unranked"] == 1).all()
    assert shares["share"].isna().all()


def test_variants_are_fitted_apart(loaded):
    plain = law(lambda n: n**0.5, clusters=2, noise=0.0)
    bare = law(lambda n: n**0.7, clusters=2, noise=0.0).assign(variant="no_sink")
    power = of(fit.fit_heads(loaded(pd.concat([plain, bare])), SETTINGS), "power").set_index("variant")["C"]
    assert power["plain"] == pytest.approx(0.5)
    assert power["no_sink"] == pytest.approx(0.7)


def test_the_mean_is_of_k_min_over_rows_and_x_the_mean_of_n(loaded):
    rows = law(lambda n: n, clusters=2, rows=2, noise=0.0, lengths=(100, 200, 400))
    rows["n"] -= np.tile([0, 20], len(rows) // 2)
    rows["k_min_0.1"] = rows["n"] * np.tile([0.25, 0.75], len(rows) // 2)
    heads = of(fit.fit_heads(loaded(rows), SETTINGS), "constant").iloc[0]
    assert heads["n_longest"] == pytest.approx(390)
    assert heads["k_longest"] == pytest.approx((0.25 * 400 + 0.75 * 380) / 2)
