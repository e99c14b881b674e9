import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from analysis import save, settings
from analysis.figures import drawn
from analysis.figures.page.shown import nearest_windows
from analysis.records.load import load


@pytest.fixture(scope="module")
def tables(analysed):
    return lambda name: save.read_csv(analysed / "tables", name)


@pytest.fixture(scope="module")
def draw(tables):
    def figure(name):
        figures = []
        drawn(name, settings.figure(name), tables, figures.append)
        return figures[0]

    return figure


@pytest.fixture(scope="module")
def windows(analysed):
    return load(analysed)[1]


@pytest.mark.parametrize("name", settings.figures())
def test_every_figure_says_what_it_rests_on(draw, name):
    words = " ".join(text.get_text() for text in draw(name).texts)
    of_rows = bool(
        {"rows", "windows", "matrices", "unions", "columns", "coverage", "distance", "sketches"}
        & set(settings.study(name).uses)
    )
    for noun in (
        ("rows", "sample", "head", "seed") if of_rows else ("TinyLM-Instruct", "95%" if name != "cost" else "cache")
    ):
        assert noun in words


@pytest.mark.parametrize("name", settings.figures())
def test_every_axis_is_named(draw, name):
    axes = draw(name).axes
    assert any(panel.get_xlabel() for panel in axes)
    assert any(panel.get_ylabel() for panel in axes)


@pytest.mark.parametrize(
    ("name", "table", "means"),
    [
        ("keys", "keys_laws", "The means"),
        ("decay_rates", "decay_rates", "The rates"),
        ("exponents", "fits_pooled", "The pooled exponents"),
        ("selectors", "selectors_summary", "The exponents"),
    ],
)
def test_means_of_some_heads_say_of_how_many_they_are(tables, draw, name, table, means):
    sources = settings.figure(name).reads[-1]
    changed = {table: tables(table).assign(heads=2, left_out=3), sources: tables(sources).assign(heads=5)}
    figures = []
    drawn(name, settings.figure(name), lambda asked: changed.get(asked, tables(asked)), figures.append)
    said = f"{means} of TinyLM-Instruct are of 2 heads: the others see no more keys"
    assert said in " ".join(text.get_text().replace("\n", " ") for text in figures[0].texts)
    assert f"{means} of" not in " ".join(text.get_text() for text in draw(name).texts)


@pytest.mark.parametrize(("name", "budget"), [("approximators", 3), ("language", 100_000)])
def test_a_window_that_was_not_measured_has_no_panel(tables, draw, name, budget):
    figures = []
    drawn(name, OmegaConf.merge(settings.figure(name), {"budget": budget}), tables, figures.append)
    empty, usual = (sum(not axes.axison for axes in figure.axes) for figure in (figures[0], draw(name)))
    assert empty > usual
    assert any(axes.get_ylabel() for axes in figures[0].axes if axes.axison)


def test_methods_of_one_window_are_left_to_the_table(tables):
    table = tables("methods")
    length = table["length"].max()
    deployed = table[(table["length"] == length) & (table["selector"] != "oracle")]
    windows = deployed.groupby("selector")["keys"].nunique()
    assert (windows > 1).sum() > 1  # else nothing would be left out
    name = windows.index[windows > 1][0]
    others = deployed[deployed["selector"] == name].index[1:]
    figures = []
    changed = {"methods": table.drop(others)}
    drawn("methods", settings.figure("methods"), lambda asked: changed.get(asked, tables(asked)), figures.append)
    assert "which the table has alone: 1" in " ".join(text.get_text() for text in figures[0].texts)
    legends = [axes.get_legend() for axes in figures[0].axes if axes.get_legend()]
    assert name not in {text.get_text() for legend in legends for text in legend.get_texts()}


def test_regimes_show_the_mean_of_the_records(tables, windows):
    table = tables("regimes")
    at = (table["rule"] == "power") & (table["parameter"] == 0.5) & (table["length"] == 1024)
    line = table[at & (table["label"] == "Gaussian, s = 0.5") & (table["measure"] == "dropped_mass")].iloc[0]
    raw = windows[
        (windows["run"] == "gaussian1")
        & (windows["rule"] == "power")
        & (windows["parameter"] == 0.5)
        & (windows["length"] == 1024)
    ]["dropped_mass"]
    assert line["centre"] == pytest.approx(raw.mean())
    half = 3.182446 * raw.std(ddof=1) / np.sqrt(4)
    assert (line["low"], line["high"]) == pytest.approx((raw.mean() - half, raw.mean() + half))


def test_regimes_show_the_median_head_of_a_model(tables, windows):
    table = tables("regimes")
    where = {"label": "TinyLM-Instruct", "rule": "fixed", "parameter": 64.0, "length": 2048}
    line = table[(table[list(where)] == pd.Series(where)).all(axis=1) & (table["measure"] == "dropped_mass")]
    raw = windows[(windows[list(where)] == pd.Series(where)).all(axis=1) & (windows["run"] == "real")]
    heads = raw.groupby(["layer", "head"])["dropped_mass"].mean()
    assert line["centre"].item() == pytest.approx(heads.median())
    assert line["low"].item() == pytest.approx(heads.quantile(0.25))
    assert line["spread"].item() == "quartiles of heads"


def test_the_cells_of_attention_are_the_recorded_ones_pooled(tables):
    table, cells = tables("attention"), tables("attention_cells")
    np.testing.assert_allclose(table["row_sum"], 1, atol=2e-3)
    assert set(table["key_pool"]) == {1, 2}
    for index, about in table.iterrows():
        own = cells[cells["matrix"] == index]
        values = own.filter(like="key_").drop(columns="key_pool").to_numpy()
        assert values.shape == (128, 128)
        np.testing.assert_allclose(np.nansum(values, axis=1), 1, atol=4e-3)
        assert np.isnan(values[0, 1:]).all()
        assert not np.isnan(np.tril(values)).any()
        assert set(own["key_pool"]) == {about["length"] // 128}


def test_exponents_are_those_of_the_fits(tables, draw):
    fits = tables("fits")
    chosen = (fits["law"] == "power") & (fits["eta"] == 0.1) & (fits["kind"] == "real") & (fits["variant"] == "plain")
    (dots,) = (line for line in draw("exponents").axes[1].lines if line.get_marker() == "o")
    assert list(dots.get_xdata()) == sorted(fits.loc[chosen, "C"].dropna())


def test_every_table_that_a_figure_reads_has_a_study_that_makes_it():
    made = [table for name in settings.studies() for table in settings.study(name).tables]
    assert len(made) == len(set(made))
    assert {table for name in settings.figures() for table in settings.figure(name).reads} <= set(made)


def test_a_window_that_is_far_from_a_budget_is_not_drawn_at_it():
    of = pd.DataFrame(
        {"family": ["fixed", "fixed", "budget"], "parameter": [64.0, 128.0, 0.05], "keys": [64, 128, 527]}
    )
    near = nearest_windows(of.assign(rule=of["family"], scale=1.0), "keys", 96)
    assert near["family"].tolist() == ["fixed"]
