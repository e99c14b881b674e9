from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import load, settings
from analysis.statistics import closed_forms, heads
from tests.analysis import synthetic

ETA = 0.1
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Heads whose k_min follows [G2] exactly for a logit scale that grows in their own way, in three variants."""
    folder = tmp_path_factory.mktemp("heads")
    draw = np.random.default_rng(3)
    starts, slopes = draw.uniform(0.5, 1.5, 30), draw.uniform(0.0, 0.15, 30)
    parts = []
    for variant, tilt in (("plain", 0.0), ("no_sink", 0.0), ("truncated_context", 0.1)):
        for head, (start, slope) in enumerate(zip(starts, slopes, strict=True)):
            frame = synthetic.law(lambda n: n, lengths=LENGTHS, clusters=12, rows=1, noise=0.0)
            n = frame["n"].to_numpy(float)
            frame["logit_std"] = start + slope * np.log(n / 512)
            noise = np.exp(0.02 * draw.normal(size=len(n)))
            frame[f"k_min_{ETA}"] = closed_forms.smallest_window(ETA, n, frame["logit_std"]) * noise * n**tilt
            parts.append(frame.assign(head=head, variant=variant))
    rows = pd.concat(parts, ignore_index=True)
    synthetic.write_run(folder, "real", "TinyLM", rows, source="smollm2", model="tiny")
    return folder, starts, slopes


@pytest.fixture(scope="module")
def found(outputs):
    rows, _ = load(outputs[0])
    return heads.exponents(rows, ETA, settings.fits(settings.analysis()))


def test_the_logit_scale_of_a_head_is_found(found, outputs):
    _, starts, slopes = outputs
    table = heads.by_head(found).query("variant == 'plain'")
    np.testing.assert_allclose(table["sigma_slope"], slopes, atol=1e-7)  # of float32
    np.testing.assert_allclose(table["s"], table["sigma"] / np.sqrt(np.log(table["n_middle"])))
    middle = np.log(np.sqrt(LENGTHS[0] * LENGTHS[-1]))
    np.testing.assert_allclose(table["sigma"], starts + slopes * (middle - np.log(512)), rtol=1e-6)


def test_heads_that_follow_the_theory_are_foretold_by_it(found):
    table = heads.by_head(found).query("variant == 'plain'")
    np.testing.assert_allclose(table["C_predicted"], table["C"], atol=0.03)
    told = heads.summary(found, settings.fits(settings.analysis())).set_index("variant")
    assert told.loc["plain", "rank_correlation"] > 0.95
    assert told.loc["plain", "absolute_error"] < 0.02
    assert told.loc["plain", "rank_correlation_low"] <= told.loc["plain", "rank_correlation"]


def test_controls_are_compared_with_the_plain_rows_of_the_same_heads(found):
    told = heads.summary(found, settings.fits(settings.analysis())).set_index("variant")
    assert told.loc["no_sink", "shift"] == pytest.approx(0, abs=0.01)
    assert told.loc["truncated_context", "shift"] == pytest.approx(0.1, abs=0.01)
    assert told.loc["truncated_context", "shift_low"] > 0
    assert np.isnan(told.loc["plain", "shift"])


def test_rank_correlation_is_spearman_s():
    from scipy import stats

    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 5, 40))
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(heads.rank_correlation(a, b), expected)


def test_intervals_of_the_summary_cover_a_population_of_heads():
    """The median exponent, the median error of [G6] and the rank correlation of 30 heads, in 60 experiments."""
    how = replace(settings.fits(settings.analysis()), resamples=200)
    truth = summary_of(4000, 0, how, noise=0.0)
    hits = dict.fromkeys(("C", "error", "absolute_error", "rank_correlation"), 0)
    trials = 60
    for trial in range(1, trials + 1):
        line = summary_of(30, trial, how)
        for name in hits:
            hits[name] += line[f"{name}_low"] <= truth[name] <= line[f"{name}_high"]
    assert all(0.85 <= hit / trials <= 1 for hit in hits.values()), hits


def summary_of(count, seed, how, noise=0.05):
    """Summary of heads whose exponent is what [G6] says of their own scale, and something of their own besides."""
    draw = np.random.default_rng([seed, 5])
    rows = synthetic.crossed(np.zeros(count), lengths=(512, 1024, 2048, 4096), shared=noise, own=noise, seed=seed)
    sigma, slope = draw.uniform(0.8, 1.2, count), draw.uniform(0.0, 0.12, count)
    n, head = rows["n"].to_numpy(float), rows["head"].to_numpy()
    rows["logit_std"] = sigma[head] + slope[head] * np.log(n / 1448)
    own = closed_forms.local_exponent(ETA, sigma, slope) + draw.normal(0.05, 0.1, count)
    rows[f"k_min_{ETA}"] *= 50 * (n / 512) ** own[head]
    keys = {"label": "M", "kind": "real", "design": "d", "s": np.nan, "sigma": np.nan}
    rows = rows.assign(cluster=rows["sample"].astype(str), **keys)
    return heads.summary(heads.exponents(rows, ETA, how), how).iloc[0]
