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
