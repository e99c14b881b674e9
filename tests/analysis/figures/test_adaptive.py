import matplotlib as mpl
import pandas as pd
import pytest
from omegaconf import OmegaConf

from analysis import settings
from analysis.figures import adaptive
from analysis.records.evidence import Evidence
from analysis.studies import NothingMeasured
from analysis.studies import adaptive as compared
from tests.analysis.statistics.test_equal_cost import records, softmax_rows


def study(windows, config):
    facts = {"run": "run", "rows": 6, "variant": "plain", "seed": 0, "design": "one", "role": "main"}
    evidence = Evidence(pd.DataFrame(), windows.assign(**facts), [])
    return compared.study(evidence, config, settings.fits(settings.analysis()))


@pytest.fixture(scope="module")
def tables():
    config = OmegaConf.merge(settings.study("adaptive"), {"budgets": [8, 16, 32]})
    return study(records(softmax_rows()), config)


@pytest.fixture(scope="module")
def figure(tables):
    # the setting of these records is none of those shown
    config = OmegaConf.create(OmegaConf.to_container(settings.figure("adaptive")) | {"shows": {}})
    with mpl.rc_context():
        return adaptive.draw(tables, config)


def test_what_is_drawn_is_in_the_table(tables, figure):
    values = {float(value) for column in adaptive.MEASURES for value in tables["adaptive"][column].dropna()}
    count = 0
    for panel in figure.axes[: len(adaptive.MEASURES)]:
        for line in panel.lines:
            drawn = [float(y) for y in line.get_ydata() if y == y]
            assert set(drawn) <= values
            count += len(drawn)
    shown = tables["adaptive"][
        (tables["adaptive"]["mix"] == "log-uniform") & tables["adaptive"]["rule"].isin(list(adaptive.RULES))
    ]
    assert count == shown[list(adaptive.MEASURES)].notna().sum().sum() > 0


def test_the_lower_panels_show_the_power_against_the_fixed_window(tables, figure):
    table = tables["adaptive"][tables["adaptive"]["rule"] == "power"]
    for panel, mix in zip(figure.axes[len(adaptive.MEASURES) :], ("uniform", "log-uniform"), strict=False):
        expected = table.loc[table["mix"] == mix, "ratio_fixed"].tolist()
        assert expected in [list(line.get_ydata()) for line in panel.lines]


def test_one_sample_is_said_to_be_too_few():
    windows = records(softmax_rows(samples=1))
    with pytest.raises(NothingMeasured, match="two samples"):
        study(windows, settings.study("adaptive"))
