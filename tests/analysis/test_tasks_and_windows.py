"""Studies of tasks, and of windows by a method's own estimate, on records whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from analysis import settings
from analysis.pipeline import of_model
from analysis.records.evidence import Records
from analysis.records.load import complete_runs
from analysis.statistics.own_windows import beside_fixed
from tests.analysis.synthetic import law, write_run


def test_what_tasks_lose_is_paired_with_dense_attention(analysed):
    table = pd.read_csv(analysed / "tables" / "tasks.csv")
    assert set(table["selector"]) == {"oracle", "sinks"}
    expected = table["selector"].map({"oracle": 8.0, "sinks": 16.0}) / table["keys"]
    np.testing.assert_allclose(table["lost"], expected, atol=1e-9)
    np.testing.assert_allclose(table["lost_low"], expected, atol=1e-9)  # alike in all samples
    assert (table["samples"] == 3).all()
    dense = pd.read_csv(analysed / "tables" / "tasks_dense.csv").set_index(["task", "length"])
    assert dense.loc[("single_needle", 512), "exact"] == 1
    assert dense.loc[("common_words", 512), "exact"] == 0
    assert dense.index.is_unique


def test_keys_that_leave_the_next_token_grow_as_they_were_made_to(analysed):
    table = pd.read_csv(analysed / "tables" / "support_keys.csv")
    at = table[(table["quality"] == "agreement") & (table["target"] == 0.9)].set_index("length")
    # linear in ln k between windows of powers of two: sqrt(n) is one of them where n is a power of four
    assert at.loc[[256, 1024], "k"].tolist() == pytest.approx([16, 32])
    assert at["exponent"].iloc[0] == pytest.approx(0.5, abs=0.02)
    quality = pd.read_csv(analysed / "tables" / "support.csv")
    np.testing.assert_allclose(quality["lost"], 0.1 * np.sqrt(quality["length"]) / quality["keys"], rtol=1e-5)


def test_keys_shared_out_are_judged_in_the_model(analysed):
    table = pd.read_csv(analysed / "tables" / "gains_in_model.csv").set_index(["by", "keys", "length"])
    assert table.loc[("gains", 32, 512), "kl"] == pytest.approx(0.5 * 1.4 * 8 / 32)
    assert table.loc[("gains", 128, 256), "difference"] == pytest.approx(-0.5 * 1.4 * 8 / 128)
    assert table.loc[("pyramid", 128, 256), "lost_difference"] == pytest.approx(1.4 * 8 / 128, rel=1e-5)
    assert table["held_out"].all()
    beside = pd.read_csv(analysed / "tables" / "methods.csv")  # which compares methods within the same windows
    assert not beside["rule"].str.startswith("budget").any()


def test_windows_by_an_estimate_stand_beside_fixed_ones(analysed):
    table = pd.read_csv(analysed / "tables" / "own_windows.csv")
    ratios = table.groupby("rule")["ratio"]
    np.testing.assert_allclose(ratios.min(), [0.8, 1.1, 1.25], rtol=1e-6)
    np.testing.assert_allclose(ratios.max(), [0.8, 1.1, 1.25], rtol=1e-6)


def test_fixed_windows_are_read_off_between_their_sizes():
    how = settings.fits(settings.analysis())
    lines = [
        {"label": "m", "length": 512, "selector": "h2o", "cluster": c, "rule": rule, "parameter": p, "k": k, "tv": tv}
        for c in ("0", "1")
        for rule, p, k, tv in (
            ("fixed", 16.0, 16.0, 0.4),
            ("fixed", 64.0, 64.0, 0.1),
            ("own_top_p", 0.2, 32.0, 0.3),
            ("own_top_p", 0.1, 200.0, 0.05),
        )
    ]
    table = beside_fixed(pd.DataFrame(lines), how).set_index("parameter")
    assert table.loc[0.2, "fixed_tv"] == pytest.approx(0.2)  # halfway in ln k, and in ln TV
    assert table.loc[0.2, "ratio"] == pytest.approx(1.5)
    assert np.isnan(table.loc[0.1, "ratio"])  # beyond what was measured


def test_windows_that_fixed_ones_reach_in_some_samples_alone_are_beside_none():
    how = settings.fits(settings.analysis())
    own = {"0": (32.0, 0.3), "1": (32.0, 0.3), "2": (200.0, 0.03)}
    lines = [
        {"label": "m", "length": 512, "selector": "h2o", "cluster": c, "rule": rule, "parameter": p, "k": k, "tv": tv}
        for c, (own_k, own_tv) in own.items()
        for rule, p, k, tv in (
            ("fixed", 16.0, 16.0, 0.4),
            ("fixed", 64.0, 64.0, 0.1),
            ("own_top_p", 0.2, own_k, own_tv),
            ("own_top_p", 0.3, 32.0, 0.3),
        )
    ]
    table = beside_fixed(pd.DataFrame(lines), how).set_index("parameter")
    assert table["clusters"].tolist() == [3, 3]
    assert table.loc[0.2, "k"] == pytest.approx((32 + 32 + 200) / 3)
    assert table.loc[0.2, "tv"] == pytest.approx((0.3 + 0.3 + 0.03) / 3)
    compared = ["fixed_tv", "ratio", "ratio_low", "ratio_high"]
    assert table.loc[0.2, compared].isna().all()
    np.testing.assert_allclose(table.loc[0.3, compared].astype(float), [0.2, 1.5, 1.5, 1.5])


def test_the_next_command_measures_the_model_of_the_records(tmp_path):
    def reason(**source):
        rows = law(lambda n: n**0.5, clusters=2, rows=2)
        write_run(tmp_path, "one", "A model", rows, **source)
        return of_model("no losses: python run.py experiment=language", Records(complete_runs(tmp_path)))

    command = "no losses: python run.py experiment=language"
    assert reason(source="smollm2", model="tiny") == command
    assert reason(source="gaussian", s=0.5) == command
    assert reason(source="qwen3", model="Qwen/Qwen3-0.6B") == f"{command} source=qwen3"
    other = reason(source="checkpoint", model="/my models/x", text=None)
    assert other == f"{command} source=checkpoint 'source.model=/my models/x'"
    assert reason(source="checkpoint", model="x", text="t.txt").endswith("source.model=x source.text=t.txt")
