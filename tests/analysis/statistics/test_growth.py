"""Layers that do not see the whole context: laws of each head's own n, no law where n does not grow, equal cost."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import keys
from analysis.__main__ import main
from analysis.statistics import choices, fit, heads
from analysis.statistics.cost_curves import read
from analysis.statistics.decay import decay_rates
from analysis.statistics.equal_cost import Contest, contest
from analysis.statistics.extrapolate import extrapolate, summary
from analysis.statistics.growth import alike, distinct
from experiments import summary as terminal
from tests.analysis.synthetic import ETAS, gaussian, write_run

SETTINGS = fit.Settings(
    etas=(0.1,), seed=0, resamples=100, confidence=0.95, min_lengths=3, at_one=0.5, at_n=0.1, clear_lead=2.0
)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
FULL = {(2, 0): (2.0, 0.6), (2, 1): (3.0, 0.4)}  # layer and head: a and C of a n^C
SLIDING = {(0, 0): 30.0, (0, 1): 60.0, (1, 0): 90.0, (1, 1): 20.0}  # as many keys at any length
PARTLY = (3, 0)  # sees up to 1024 keys
HOLDS = {**dict.fromkeys(FULL, 1 << 20), **dict.fromkeys(SLIDING, 256), PARTLY: 1024}


def model_rows(places=tuple(HOLDS), lengths=LENGTHS, samples=4, rows=4):
    """Rows as a model of full and sliding-window layers has them, each head with a law of its own n."""
    lines = []
    for layer, head in places:
        for sample in range(samples):
            for length in lengths:
                n = np.minimum(np.arange(length - rows, length) + 1, HOLDS[layer, head])
                a, c = FULL.get((layer, head), (SLIDING.get((layer, head), 4.0), 0.0 if layer < 2 else 0.5))
                line = {"layer": layer, "head": head, "sample": sample, "length": length, "n": n, "variant": "plain"}
                line |= {"position": np.arange(length - rows, length), "logit_std": 2.0, "participation": 5.0}
                lines.append(pd.DataFrame(line | {f"k_min_{eta}": a * n.astype(float) ** c for eta in ETAS}))
    return pd.concat(lines, ignore_index=True)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    write_run(folder, "r", "Gemma", model_rows(), source="checkpoint", model="gemma")
    return analysis.load(folder)[0]


def test_lengths_of_the_same_n_are_one_point():
    seen = np.array([[1, 2, 4, 8], [1, 2, 2, 2], [2, 2, 2, 2], [3, 1, 3, 2]], float)
    expected = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]]
    np.testing.assert_array_equal(distinct(seen), np.array(expected, bool))
    # where the first of them is not usable, the next one takes its place
    usable = np.array([[True] * 4, [True, False, True, True], [True] * 4, [True] * 4])
    assert distinct(seen, usable)[1].tolist() == [True, True, True, False]
    assert alike(seen).tolist() == [True, False, False, False]


def test_each_head_has_the_exponent_of_its_own_n_and_a_sliding_one_has_none(rows):
    power = fit.fit_heads(rows, SETTINGS).query("law == 'power'").set_index(["layer", "head"])
    for place, (a, c) in FULL.items():
        assert power.loc[place, "C"] == pytest.approx(c, abs=1e-4)
        assert power.loc[place, "a"] == pytest.approx(a, rel=1e-3)
        assert power.loc[place, "n_longest"] == pytest.approx(8190.5)
    for place in SLIDING:
        line = power.loc[place]
        assert line[["a", "C", "C_low", "C_high", "aicc", "lead"]].isna().all()
        assert line["n_longest"] == 256
        assert "n does not grow with the context: at most 256 keys" in line["reason"]
    partly = power.loc[PARTLY]
    assert (partly["C"], partly["lengths"]) == (pytest.approx(0.5, abs=1e-4), 3)
    assert partly["n_longest"] == 1024


def test_one_length_more_or_less_within_the_window_decides(rows):
    """With two different n there is no law, and the reason is the window's, not the number of lengths measured."""
    power = fit.fit_heads(rows[rows["length"] > 256], SETTINGS).query("law == 'power'").set_index(["layer", "head"])
    assert np.isnan(power.loc[PARTLY, "C"])
    assert "2 different n at 5 lengths" in power.loc[PARTLY, "reason"]
    few = fit.fit_heads(rows[rows["length"] < 1024], SETTINGS)
    of_full = few[few["layer"] == 2]
    assert of_full["reason"].str.contains("fewer than 3 lengths").all()


def test_the_typical_head_is_one_of_those_that_have_a_law(rows):
    pooled = fit.fit_pooled(rows, SETTINGS).query("law == 'power'").iloc[0]
    assert (pooled["heads"], pooled["left_out"]) == (2, 5)
    assert pooled["C"] == pytest.approx(0.5, abs=1e-4)
    assert pooled["n_longest"] == pytest.approx(8190.5)
    alone = fit.fit_pooled(rows[rows["layer"] == 2], SETTINGS).query("law == 'power'").iloc[0]
    assert alone["C"] == pooled["C"]
    only = fit.fit_pooled(rows[rows["layer"] < 2], SETTINGS).query("law == 'power'").iloc[0]
    assert np.isnan(only["C"])
    assert "n does not grow" in only["reason"]


def test_heads_that_all_stop_at_one_window_are_pooled_within_it(rows):
    pooled = fit.fit_pooled(rows[rows["layer"] == 3], SETTINGS).query("law == 'power'").iloc[0]
    assert (pooled["C"], pooled["lengths"], pooled["left_out"]) == (pytest.approx(0.5, abs=1e-4), 3, 0)


def test_extrapolation_tests_only_what_grows(rows):
    table = extrapolate(rows, SETTINGS, [0.5]).query("law == 'power' and scope == 'head'").set_index(["layer", "head"])
    for place in FULL:
        assert table.loc[place, "error"] == pytest.approx(0, abs=1e-3)
    for place in SLIDING:
        assert np.isnan(table.loc[place, "error"])
        assert "n does not grow" in table.loc[place, "reason"]
    assert set(summary(rows, 0.1, SETTINGS, [0.5])["heads"]) == {2}


def test_predictions_from_the_logit_scale_leave_them_out_too(rows):
    table = heads.by_head(heads.exponents(rows, 0.1, SETTINGS)).set_index(["layer", "head"])
    assert set(table["C"].dropna().index) == {*FULL, PARTLY}
    assert table.loc[(2, 0), "C"] == pytest.approx(0.6, abs=1e-4)


def test_the_terminal_says_how_many_heads_stand_still():
    rows = model_rows()
    assert sorted(np.round(terminal.slopes(rows), 4)) == [0.4, 0.5, 0.6]
    assert "4 of 7 heads see no more keys" in terminal.sentence(rows)


WINDOW = 128
SHORT = (64, 128, 256, 512, 1024)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of a model with one full and three sliding-window heads, and of its full head alone, analysed."""
    folder = tmp_path_factory.mktemp("gemma")
    how = {"rows": 4, "samples": 4, "s": 0.6}
    of_sliding = gaussian(SHORT, places=((0, 0), (0, 1), (2, 0)), sees=WINDOW, **how)
    parts = [gaussian(SHORT, places=((1, 0),), **how), of_sliding]
    tables = [pd.concat([part[i] for part in parts], ignore_index=True) for i in range(2)]
    write_run(folder, "mixed", "Gemma", *tables, source="checkpoint", model="gemma")
    write_run(folder, "full", "Full head", *parts[0], source="checkpoint", model="gemma", seed=1)
    assert main(["--outputs", str(folder), "--only", "exponents", "adaptive"]) == 0
    return folder


def test_windows_know_the_most_keys_that_their_rows_see(records):
    _, windows = analysis.load(records)
    of_full = windows["layer"] == 1
    np.testing.assert_array_equal(windows.loc[of_full, "n"], windows.loc[of_full, "length"])
    np.testing.assert_array_equal(windows.loc[~of_full, "n"], windows.loc[~of_full, "length"].clip(upper=WINDOW))


def test_rates_and_growth_are_those_of_the_full_head(records):
    _, windows = analysis.load(records)
    mixed, full = (windows[windows["label"] == label] for label in ("Gemma", "Full head"))
    by = ["rule", "parameter", "scale"]
    rates = [decay_rates(part, ["tv"], SETTINGS).set_index(by) for part in (mixed, full)]
    assert len(rates[0])
    np.testing.assert_allclose(rates[0]["rate"], rates[1]["rate"], rtol=1e-12)
    assert set(rates[0]["left_out"]) == {3}
    grown = [choices.growth(part, 0.2, SETTINGS).iloc[0] for part in (mixed, full)]
    assert grown[0]["C"] == pytest.approx(grown[1]["C"], rel=1e-12)
    assert (grown[0]["left_out"], grown[1]["left_out"]) == (3, 0)
    still = windows[(windows["label"] == "Gemma") & (windows["layer"] != 1)]
    assert decay_rates(still, ["tv"], SETTINGS).empty
    line = choices.growth(still, 0.2, SETTINGS).iloc[0]
    assert np.isnan(line["C"])
    assert "at most 128 keys" in line["reason"]


def test_equal_cost_counts_the_keys_that_can_be_seen(records):
    _, windows = analysis.load(records)
    mixed = windows[windows["label"] == "Gemma"]
    curves = read(mixed)
    assert sorted(curves.n) == sorted([*SHORT, *(min(n, WINDOW) for n in SHORT)])
    uniform = curves.weights(np.full(len(SHORT), 1 / len(SHORT)))
    assert uniform @ curves.n == pytest.approx((np.mean(SHORT) + 3 * np.mean([min(n, WINDOW) for n in SHORT])) / 4)
    how = Contest((64.0,), {"log-uniform": 1.0}, tuple(np.linspace(0, 1, 21)), 3.0, 0.9)
    table = contest(mixed, how, SETTINGS).set_index("rule")
    weights = np.gradient(np.log(SHORT))
    weights /= weights.sum()
    k = table.loc["fixed", "parameter"]
    assert np.dot(weights, [(min(k, n) + 3 * min(k, n, WINDOW)) / 4 for n in SHORT]) == pytest.approx(64, rel=1e-6)
    beta = table.loc["linear", "parameter"]
    assert np.dot(weights, [(beta * n + 3 * beta * min(n, WINDOW)) / 4 for n in SHORT]) == pytest.approx(64, rel=1e-6)


def test_no_verdict_counts_a_head_that_does_not_grow(records):
    fits = pd.read_csv(records / "tables" / "fits.csv").query("label == 'Gemma' and law == 'power' and eta == 0.1")
    assert fits["C"].notna().sum() == 1
    claims = pd.read_csv(records / "tables" / "claims.csv")
    of_heads = claims[(claims["source"] == "Gemma") & (claims["table"] == "fits")]
    assert set(of_heads["lines"]) == {1}
    page = (records / "report" / "index.html").read_text()
    assert "3 more heads see no longer rows" in page


def test_a_model_without_any_law_stands_beside_one_that_has_some(tmp_path, capsys):
    """A model of sliding-window layers alone fails no figure; its heads are in the table, with their reason."""
    write_run(tmp_path, "r", "Gemma", model_rows(), source="checkpoint", model="gemma")
    alone = model_rows(places=tuple(SLIDING))
    write_run(tmp_path, "s", "Sliding", alone, source="checkpoint", model="sliding")
    assert main(["--outputs", str(tmp_path), "--only", "exponents", "heads", "models"]) == 0
    assert "failed" not in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "tables" / "fits.csv")
    table = table.query("label == 'Sliding' and law == 'power' and eta == 0.1 and variant == 'plain'")
    assert len(table) == len(SLIDING)
    assert table["C"].isna().all()
    assert table["reason"].str.contains("n does not grow").all()


@pytest.mark.parametrize("of_head", [{}, {"layer": PARTLY[0], "head": PARTLY[1]}])
def test_keys_needed_beyond_a_sliding_window_are_those_of_the_keys_that_rows_see(tmp_path, capsys, of_head):
    places = [*FULL, PARTLY] if of_head else [PARTLY]
    write_run(tmp_path, "r", "Gemma", model_rows(places=places), source="checkpoint", model="gemma")
    n = [100, 512, 1024, 8192, 1_000_000]
    needed = analysis.k_min("Gemma", n, 0.1, outputs=tmp_path, law="power", **of_head)
    np.testing.assert_allclose(needed["k"], 4 * np.minimum(n, HOLDS[PARTLY]) ** 0.5, rtol=1e-3)
    assert (needed[["k_low", "k", "k_high"]].to_numpy() <= HOLDS[PARTLY]).all()
    assert needed["extrapolated"].tolist() == [True, False, False, False, True]
    words = ["--model", "Gemma", "--law", "power", "--outputs", str(tmp_path), "--n", "100", "8192"]
    assert keys.main([*words, *(word for name, value in of_head.items() for word in (f"--{name}", str(value)))]) == 0
    short, long = capsys.readouterr().out.splitlines()[-2:]
    assert short.startswith("n = 100: 40.0 keys [")
    assert short.endswith("by the law power, extrapolated")
    assert long.startswith("n = 8,192: 128.0 keys [")
    assert long.endswith("by the law power")


def test_keys_of_a_mean_that_grows_are_held_at_no_window_of_the_other_heads(tmp_path):
    write_run(tmp_path, "r", "Gemma", model_rows(), source="checkpoint", model="gemma")
    n = [100, 8192, 1_000_000]
    needed = analysis.k_min("Gemma", n, 0.1, outputs=tmp_path, mean="typical head", law="power")
    np.testing.assert_allclose(needed["k"], np.sqrt(6 * np.array(n)), rtol=1e-3)
    assert needed["extrapolated"].tolist() == [True, False, True]
