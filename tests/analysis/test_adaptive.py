import matplotlib as mpl
import pandas as pd
import pytest

from analysis import settings
from analysis.figures import Evidence, NothingToDraw, adaptive
from tests.analysis.test_equal_cost import records, softmax_rows


def evidence(windows):
    nothing = pd.DataFrame()
    facts = {"run": "run", "rows": 6, "variant": "plain", "seed": 0}
    return Evidence(nothing, windows.assign(**facts), nothing, nothing, [])


@pytest.fixture(scope="module")
def drawing():
    config = settings.figure("adaptive")
    config.budgets = [8, 16, 32]
    with mpl.rc_context():
        return adaptive.draw(evidence(records(softmax_rows())), config)


def test_what_is_drawn_is_in_the_table(drawing):
    told = {float(value) for column in adaptive.MEASURES for value in drawing.table[column].dropna()}
    count = 0
    for panel in drawing.figure.axes[: len(adaptive.MEASURES)]:
        for line in panel.lines:
            drawn = [float(y) for y in line.get_ydata() if y == y]
            assert set(drawn) <= told
            count += len(drawn)
    shown = drawing.table[(drawing.table["mix"] == "log-uniform") & drawing.table["rule"].isin(list(adaptive.RULES))]
    assert count == shown[list(adaptive.MEASURES)].notna().sum().sum() > 0


def test_the_lower_panels_show_the_power_against_the_fixed_window(drawing):
    table = drawing.table[drawing.table["rule"] == "power"]
    for panel, mix in zip(drawing.figure.axes[len(adaptive.MEASURES) :], ("uniform", "log-uniform"), strict=False):
        expected = table.loc[table["mix"] == mix, "ratio_fixed"].tolist()
        assert expected in [list(line.get_ydata()) for line in panel.lines]


def test_one_sample_is_said_to_be_too_few():
    windows = records(softmax_rows(samples=1))
    with pytest.raises(NothingToDraw, match="two samples"):
        adaptive.draw(evidence(windows), settings.figure("adaptive"))
