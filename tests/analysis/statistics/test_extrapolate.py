import numpy as np
import pytest

import analysis
from analysis.statistics import fit
from analysis.statistics.extrapolate import extrapolate, summary
from analysis.statistics.laws import LAWS
from analysis.statistics.matched_gamma import keys_from_sums
from tests.analysis.synthetic import crossed, law, write_run

SETTINGS = fit.Settings(
    etas=(0.1,), seed=0, resamples=200, confidence=0.95, min_lengths=3, at_one=0.5, at_n=0.1, clear_lead=2.0
)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


def errors(folder, k_of_n, **keys):
    write_run(folder, "r", "Model", law(k_of_n, lengths=LENGTHS, **keys), source="smollm2")
    return extrapolate(analysis.load(folder)[0], SETTINGS, (0.25, 0.5))


def test_the_true_law_predicts_and_a_wrong_one_errs_by_what_theory_says(tmp_path):
    table = errors(tmp_path, lambda n: 3 * n**0.6, clusters=4, heads=6, noise=0.0)
    pooled = table[table["scope"] == "pooled"].set_index(["law", "share"])["error"]
    assert pooled["power", 0.25] == pytest.approx(0, abs=1e-9)
    # the mean of ln n over 256..2048 lies 3.5 doublings below ln 8192
    assert pooled["constant", 0.25] == pytest.approx(-0.6 * 3.5 * np.log(2))
    assert pooled["linear", 0.25] == pytest.approx(0.4 * 3.5 * np.log(2))
    heads = table[table["scope"] == "head"]
    assert set(heads[heads["best"]]["law"]) == {"power"}
    assert len(heads) == 6 * len(LAWS) * 2


def test_intervals_cover_an_error_of_nothing(tmp_path):
    table = errors(tmp_path, lambda n: 3 * n**0.6, clusters=12, heads=200, noise=0.2)
    power = table[(table["law"] == "power") & (table["scope"] == "head") & (table["share"] == 0.5)]
    covered = (power["error_low"] <= 0) & (power["error_high"] >= 0)
    assert 0.90 <= covered.mean() <= 0.98


def test_too_few_short_lengths_are_said(tmp_path):
    write_run(tmp_path, "r", "Model", law(np.sqrt, lengths=(512, 1024, 2048)), source="smollm2")
    table = extrapolate(analysis.load(tmp_path)[0], SETTINGS, (0.25,))
    assert table["error"].isna().all()
    assert table["reason"].str.contains("fewer than 3").all()
    assert not table["best"].any()


def test_a_prediction_stays_a_window(tmp_path):
    table = errors(tmp_path, lambda n: 1e6 * n**-1.2, clusters=2, noise=0.0)
    assert (table["error"] + np.log(table["k_longest"]) >= -1e-9).all()


def test_the_summary_counts_heads_and_compares_power_with_log(tmp_path):
    """Heads of pure power laws: the power law is nearest for most, and its error clearly below that of the log law."""
    rows = crossed(np.full(20, 0.6), lengths=(256, 512, 1024, 2048, 4096, 8192), shared=0.01, own=0.02)
    write_run(tmp_path, "real", "TinyLM", rows, source="smollm2", model="tiny")
    loaded, _ = analysis.load(tmp_path)
    table = summary(loaded, 0.1, SETTINGS, [0.25])
    heads = table[table["scope"] == "heads"].set_index("law")
    per_head = extrapolate(loaded, SETTINGS, [0.25]).query("scope == 'head'")
    medians = per_head["error"].abs().groupby(per_head["law"]).median()
    np.testing.assert_allclose(heads.loc[medians.index, "absolute_error"], medians, rtol=1e-9)
    assert heads["best"].sum() == pytest.approx(1)
    against = table[table["scope"] == "against log"].iloc[0]
    sizes = per_head.assign(size=per_head["error"].abs()).pivot_table("size", "head", "law")
    assert against["difference"] == pytest.approx((sizes["power"] - sizes["log"]).median())
    assert against["difference_high"] < 0
    # total keys: the power law foretells them, the log law too few, and their mean in ln k lies between
    total = heads["total_ratio"]
    assert total["power"] == pytest.approx(1, abs=0.03)
    assert total["log"] < total["power and log"] < total["power"]
    assert (heads["absolute_error_low"].dropna() >= 0).all()
    assert (heads["absolute_error_low"] <= heads["absolute_error"] + 1e-12).all()
    assert heads["best_low"].dropna().between(0, 1).all()
    assert heads["best_high"].dropna().between(0, 1).all()


def test_sums_that_follow_their_trend_foretell_the_keys(tmp_path):
    """Entropy and variance of ln p are lines in ln n: [G8] reads the keys of the longest length off them."""
    rows = crossed(np.full(6, 0.7), lengths=LENGTHS, shared=0.0, own=0.0)
    x = np.log(rows["n"])
    rows["entropy"], rows["log_p_variance"], rows["p_max"] = 0.9 * x - 0.2, 0.3 + 0.1 * x, 0.01
    longest = rows["n"] == max(LENGTHS)
    sums = rows.loc[longest, ["n", "entropy", "p_max"]].iloc[0]
    variance = rows.loc[longest, "log_p_variance"].iloc[0]
    rows.loc[longest, "k_min_0.1"] = float(keys_from_sums(0.1, *sums, log_p_variance=variance))
    rows.loc[longest, ["entropy", "log_p_variance"]] = 1.0  # what is to be foretold is not looked at
    write_run(tmp_path, "real", "TinyLM", rows, source="smollm2", model="tiny")
    table = summary(analysis.load(tmp_path)[0], 0.1, SETTINGS, [0.25]).set_index(["scope", "law"])
    assert table.loc[("heads", "sums"), "absolute_error"] == pytest.approx(0, abs=1e-3)
    assert table.loc[("heads", "sums"), "total_ratio"] == pytest.approx(1, abs=1e-3)


def test_intervals_of_the_summary_cover_the_truth_of_a_population():
    """The median |error| of a population of power laws, and total keys by its own law, in 60 experiments."""
    truth = summary_of(crossed(exponents_of(3000, 0), lengths=LENGTHS, clusters=12, seed=0))
    hits = {name: 0 for name in ("absolute_error", "total_ratio", "difference")}
    trials = 60
    for trial in range(1, trials + 1):
        found = summary_of(crossed(exponents_of(25, trial), lengths=LENGTHS, clusters=12, seed=trial))
        for name, scope in (("absolute_error", "heads"), ("total_ratio", "heads"), ("difference", "against log")):
            line = found.loc[(scope, "power")]
            true = 1.0 if name == "total_ratio" else truth.loc[(scope, "power"), name]
            hits[name] += line[f"{name}_low"] <= true <= line[f"{name}_high"]
    # the median errors are compared with a draw, of 12 clusters that all heads share: some miss it by that
    assert all(0.75 <= hit / trials <= 1 for hit in hits.values()), hits


def exponents_of(heads, seed):
    return np.random.default_rng(seed).normal(0.6, 0.1, heads)


def summary_of(rows):
    rows = rows.assign(label="M", kind="real", cluster=rows["sample"].astype(str), design="d", s=np.nan, sigma=np.nan)
    return summary(rows, 0.1, SETTINGS, [0.25]).set_index(["scope", "law"])
