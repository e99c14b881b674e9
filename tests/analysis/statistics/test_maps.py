"""Maps of heads whose numbers are known."""

import numpy as np
import pytest

from analysis import settings
from analysis.statistics.maps import of_label
from tests.analysis.synthetic import crossed

HOW = settings.fits(settings.analysis())
EXPONENTS = np.linspace(0.2, 0.6, 10)
SINKS = np.array([0.9, 0.85, 0.5, 0.4, 0.35, 0.1, 0.1, 0.1, 0.1, 0.1])


@pytest.fixture
def rows():
    frame = crossed(EXPONENTS, own=0.0, shared=0.0)
    frame["entropy"] = 1 + EXPONENTS[frame["head"]] * np.log(frame["n"])
    frame["sink_mass"] = SINKS[frame["head"]]
    return frame.assign(label="m", cluster=frame["sample"])


def test_heads_have_their_growth_sink_and_share_of_keys(rows):
    table, about = of_label(rows, 0.05, [0.3, 0.8], HOW)
    np.testing.assert_allclose(table["alpha"], EXPONENTS)
    np.testing.assert_allclose(table["sink_mass"], SINKS)
    last = rows[rows["length"] == 8192].groupby("head")["k_min_0.05"].mean()
    np.testing.assert_allclose(table["k"], last)
    np.testing.assert_allclose(table["share"], last / 8192)
    assert (about["n"], about["heads"], about["clusters"]) == (8192, 10, 12)
    assert (about["above_30"], about["above_80"]) == (0.5, 0.2)
    assert 0 <= about["above_80_low"] < 0.2 < about["above_80_high"] < 0.6
    assert about["sink_mass"] == pytest.approx(SINKS.mean())
    assert about["sink_mass_low"] < about["sink_mass"] < about["sink_mass_high"]


def test_a_head_that_sees_no_more_keys_has_no_growth(rows):
    sliding = rows["head"] == 0
    rows.loc[sliding, "n"] = rows.loc[sliding, "n"].clip(upper=512)
    table, _ = of_label(rows, 0.05, [0.3], HOW)
    assert np.isnan(table["alpha"][0])
    assert table["n"][0] == 512
    assert table["share"][0] == pytest.approx(table["k"][0] / 512)
