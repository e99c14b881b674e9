from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from analysis import figures, settings
from analysis.records.evidence import gather
from analysis.records.load import complete_runs, load_runs
from analysis.tables import Fits


@pytest.fixture(scope="module")
def evidence(analysed):
    from analysis import save

    runs = complete_runs(analysed)
    rows, windows = load_runs(runs)
    fits = Fits(*(save.read_csv(analysed / "tables", name) for name in ("fits", "fits_pooled", "laws")), True)
    return lambda name: gather(settings.figure(name), rows, windows, fits, runs)


def draw(evidence, name):
    found, _ = evidence(name)
    return import_module(f"analysis.figures.{name}").draw(found, settings.figure(name))


@pytest.mark.parametrize("name", figures.names())
def test_every_figure_says_what_it_rests_on(evidence, name):
    drawing = draw(evidence, name)
    words = " ".join(text.get_text() for text in drawing.figure.texts)
    of_rows = bool({"rows", "windows", "matrices"} & set(settings.figure(name).uses))
    for noun in (
        ("rows", "sample", "head", "seed") if of_rows else ("TinyLM-Instruct", "95%" if name != "cost" else "cache")
    ):
        assert noun in words
    assert len(drawing.table) > 0


@pytest.mark.parametrize("name", figures.names())
def test_every_axis_is_named(evidence, name):
    axes = draw(evidence, name).figure.axes
    assert any(panel.get_xlabel() for panel in axes)
    assert any(panel.get_ylabel() for panel in axes)


def test_regimes_show_the_mean_of_the_records(evidence):
    found, _ = evidence("regimes")
    table = draw(evidence, "regimes").table
    at = (table["rule"] == "power") & (table["parameter"] == 0.5) & (table["length"] == 1024)
    line = table[at & (table["label"] == "Gaussian, s = 0.5") & (table["measure"] == "dropped_mass")].iloc[0]
    raw = found.windows[
        (found.windows["label"] == "Gaussian, s = 0.5")
        & (found.windows["rule"] == "power")
        & (found.windows["parameter"] == 0.5)
        & (found.windows["length"] == 1024)
    ]["dropped_mass"]
    assert line["centre"] == pytest.approx(raw.mean())
    half = 3.182446 * raw.std(ddof=1) / np.sqrt(4)
    assert (line["low"], line["high"]) == pytest.approx((raw.mean() - half, raw.mean() + half))


def test_regimes_show_the_median_head_of_a_model(evidence):
    found, _ = evidence("regimes")
    table = draw(evidence, "regimes").table
    where = {"label": "TinyLM-Instruct", "rule": "fixed", "parameter": 64.0, "length": 2048}
    line = table[(table[list(where)] == pd.Series(where)).all(axis=1) & (table["measure"] == "dropped_mass")]
    raw = found.windows[(found.windows[list(where)] == pd.Series(where)).all(axis=1)]
    heads = raw.groupby(["layer", "head"])["dropped_mass"].mean()
    assert line["centre"].item() == pytest.approx(heads.median())
    assert line["low"].item() == pytest.approx(heads.quantile(0.25))
    assert line["spread"].item() == "quartiles of heads"


def test_attention_reads_the_recorded_cells(evidence):
    table = draw(evidence, "attention").table
    np.testing.assert_allclose(table["row_sum"], 1, atol=2e-3)
    assert set(table["key_pool"]) == {1, 2}


def test_exponents_are_those_of_the_fits(evidence):
    found, used = evidence("exponents")
    assert [run.id for run in used] == ["real"]
    power = found.heads[(found.heads["law"] == "power") & (found.heads["eta"] == 0.1)]
    assert sorted(draw(evidence, "exponents").table["C"]) == sorted(power["C"])
