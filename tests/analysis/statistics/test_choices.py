"""Budget and choice, keys needed and their growth, on records whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from analysis import settings
from analysis.records.load import fullest_design, load
from analysis.statistics import bootstrap, choices
from analysis.statistics.line import slopes


@pytest.fixture(scope="module")
def windows():
    """A selector that needs n^0.5 keys times a factor and one that needs a share of n, at every sample alike."""
    lines = []
    for sample in range(4):
        for n in (256, 1024, 4096):
            for k in np.unique(np.geomspace(1, n, 40).round()):
                line = {
                    "label": "x",
                    "length": n,
                    "n": n,
                    "rule": "grid",
                    "parameter": k,
                    "scale": 1.0,
                    "k": k,
                    "layer": 0,
                }
                line |= {"head": 0, "cluster": f"c{sample}", "keys_read": k, "output_error_renormalised": 1 / k}
                tilt = 1 + 0.01 * sample
                root, share = 1 / (1 + k / (2 * tilt * np.sqrt(n))), max(1 - k / n, 0.0)
                lines.append(line | {"selector": "oracle", "tv": min(root, share)})
                lines.append(line | {"selector": "root", "tv": root})
                lines.append(line | {"selector": "share", "tv": share})
    return pd.DataFrame(lines)


def test_tv_is_budget_and_choice(windows):
    table = choices.split(windows, 0.95)
    assert np.allclose(table["budget"] + table["choice"], table["tv"])
    assert (table.loc[table["selector"] == "oracle", "choice"] == 0).all()
    assert (table["choice"] >= 0).all()
    own = table[(table["selector"] == "share") & (table["length"] == 1024)].sort_values("k")
    raw = windows[(windows["length"] == 1024) & (windows["k"] == own["k"].iloc[20])]
    wide = raw.pivot_table("tv", "cluster", "selector")
    gap = wide["share"] - wide["oracle"]
    assert own["choice"].iloc[20] == pytest.approx(gap.mean())
    half = 3.182446 * gap.std(ddof=1) / 2
    assert own["choice_high"].iloc[20] == pytest.approx(gap.mean() + half)
    assert own["choice_low"].iloc[20] == pytest.approx(gap.mean() - half)


def test_the_exponent_is_that_of_the_law(windows):
    found = choices.growth(windows, 0.2, settings.fits(settings.analysis())).set_index("selector")
    assert found.loc["root", "C"] == pytest.approx(0.5, abs=0.01)
    assert found.loc["share", "C"] == pytest.approx(1.0, abs=0.01)
    assert found.loc["share", "keys"] == pytest.approx(0.8 * 4096, rel=0.02)
    assert found.loc["root", "keys"] == pytest.approx(4 * 2 * 1.015 * 64, rel=0.05)
    assert (found["C_low"] <= found["C"]).all()
    assert (found["C"] <= found["C_high"]).all()


def test_an_estimate_below_its_least_budget_has_no_value_and_may_lie_below_the_oracle(windows):
    estimate = windows[windows["selector"] == "oracle"].assign(selector="mean_value")
    estimate["tv"] = (estimate["tv"] * 0.9).where(estimate["k"] >= 30)
    every = pd.concat([windows, estimate], ignore_index=True)
    table = choices.split(every, 0.95).set_index("selector").loc["mean_value"]
    assert table["output_error"].notna().all()
    assert (table["choice"].isna() == (table["k"] < 30)).all()
    assert (table.loc[(table["k"] >= 30) & (table["k"] < table["length"] / 2), "choice"] < 0).all()
    grown = choices.growth(every, 0.2, settings.fits(settings.analysis())).set_index("selector")
    assert grown.loc["mean_value", "keys"] < grown.loc["oracle", "keys"]


def test_what_is_never_reached_has_no_exponent(windows):
    few = windows[windows["k"] < 20]
    assert choices.growth(few, 0.01, settings.fits(settings.analysis()))["C"].isna().all()


def test_times_stand_beside_the_error_of_the_same_keys(analysed):
    table = pd.read_csv(analysed / "tables" / "selectors.csv")
    timed = table[table["ms"].notna()]
    assert set(timed["label"]) == {"TinyLM-Instruct"}
    assert set(timed["selector"]) == {"oracle", "random"}
    assert set(timed["length"]) == {2048}
    random = timed[(timed["selector"] == "random") & (timed["k"] == 60)]
    assert np.allclose(random["ms"], 60e-3)
    assert np.allclose(random["tv"], 1 - 60 / 2048)


def test_the_record_with_most_selectors_is_shown(analysed):
    _, windows = load(analysed)
    of_gaussian = windows[(windows["label"] == "Gaussian, s = 0.5") & (windows["variant"] == "plain")]
    assert set(fullest_design(of_gaussian)["selector"]) == {"oracle"}
    assert set(fullest_design(of_gaussian, "selector")["selector"]) == {"oracle", "random", "lev_attention"}


def test_the_figures_tell_random_from_the_oracle(analysed):
    table = pd.read_csv(analysed / "tables" / "selectors.csv")
    random = table[(table["selector"] == "random") & (table["label"] == "TinyLM-Instruct") & (table["rule"] == "grid")]
    assert np.allclose(random["tv"], 1 - random["k"] / random["length"])
    summary = pd.read_csv(analysed / "tables" / "selectors_summary.csv")
    grown = summary[(summary["measure"] == "keys needed") & (summary["selector"] == "random")]
    assert np.allclose(grown["C"], 1, atol=0.05)
    assert set(pd.read_csv(analysed / "tables" / "fits.csv")["variant"]) == {"plain"}  # laws are of softmax alone
    both = pd.read_csv(analysed / "tables" / "leverage.csv")
    assert set(both["variant"]) == {"plain", "plain, |x|^2"}


def test_a_sample_that_needs_more_keys_than_were_measured_steepens_the_growth(windows):
    """One of the samples does not reach eta at the longest length with the keys there are; all together do."""
    how, eta = settings.fits(settings.analysis()), 0.2
    root = windows[(windows["selector"] == "root") & (windows["k"] <= 700)]
    poor = (root["cluster"] == "c3") & (root["length"] == 4096)
    noisy = root.assign(tv=root["tv"].where(~poor, root["tv"] * 1.3))
    line = choices.growth(noisy, eta, how).iloc[0]
    frame, x = choices.by_cluster(noisy, ["tv"]), np.log([256, 1024, 4096])
    weights = bootstrap.weights(4, how.resamples, how.seed, "x")
    needed = np.column_stack([choices._needed(frame[frame["length"] == n], weights, eta) for n in (256, 1024, 4096)])
    lacking = np.isnan(needed).any(1)
    assert 0.05 < lacking.mean() < 0.9
    _, high = bootstrap.interval(np.asarray(line["C"]), slopes(needed[~lacking], x), 4, how.confidence)
    assert high < line["C_high"] < np.inf


def test_rates_are_those_of_windows_without_a_factor():
    how = settings.fits(settings.analysis())
    lines = [
        {"label": "x", "length": n, "n": n, "rule": "power", "parameter": c, "scale": scale, "k": scale * n**c}
        | {"layer": 0, "head": head, "cluster": f"c{sample}", "selector": selector}
        | {"tv": (0.9 + 0.01 * sample) * n ** (-0.1 * scale)}
        for sample in range(3)
        for head in range(2)
        for n in (256, 512, 1024, 2048)
        for c in (0.3, 0.5)
        for scale in (1.0, 2.0)
        for selector in ("oracle", "h2o")
    ]
    every = pd.DataFrame(lines)
    table = choices.rates(every, ["tv"], how)
    assert len(table) == 4  # two methods, two exponents
    assert set(table["scale"]) == {1.0}
    np.testing.assert_allclose(table["rate"], -0.1)
    pd.testing.assert_frame_equal(table, choices.rates(every[every["scale"] == 1], ["tv"], how))
