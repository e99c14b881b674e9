"""Attention by distance: exponents that are known, and what no row may decide."""

import numpy as np
import pytest

from analysis import save, settings
from analysis.records.evidence import Evidence
from analysis.statistics.distance import curves_of
from analysis.studies.distance import study
from tests.analysis.synthetic import distances

CONFIG = settings.study("distance")
ABOUT = {"kind": "real", "role": "main", "s": np.nan, "sigma": np.nan, "design": "d", "seed": 0, "run": "r"}
EXPONENTS = (0.4, 0.8, 1.2, 1.6)


@pytest.fixture(scope="module")
def tables(analysed):
    names = ("distance", "distance_laws", "distance_heads", "distance_sources")
    return {name: save.read_csv(analysed / "tables", name) for name in names}


def test_every_head_has_the_exponent_of_its_own_law(tables):
    heads = tables["distance_heads"]
    for length, part in heads.groupby("length"):
        part = part.sort_values(["layer", "head"])
        np.testing.assert_allclose(part["exponent"], EXPONENTS, atol=1e-9, err_msg=str(length))
        assert part["residual"].max() < 1e-9
        assert (part["exponent_high"] - part["exponent_low"]).max() < 1e-9  # samples differ in level alone


def test_the_mean_over_heads_falls_less_than_the_median_head(tables):
    raw = distances(((0, 0), (0, 1), (1, 0), (1, 1)))
    for length, laws in tables["distance_laws"].groupby("length"):
        (line,) = laws.to_dict("records")
        own = raw[(raw["length"] == length) & (raw["pairs"] == 8 * (raw["last"] - raw["distance"] + 1))]
        mean = own.groupby(["distance", "last"])["probability"].mean().reset_index()
        inside = mean[(mean["distance"] >= 10) & (mean["last"] <= 2000)]
        middle = np.log(inside["distance"] * inside["last"]) / 2
        assert line["exponent"] == pytest.approx(-np.polyfit(middle, np.log(inside["probability"]), 1)[0])
        assert line["exponent_median"] == pytest.approx(1.0)
        assert line["exponent"] < line["exponent_median"]
        assert (line["heads"], line["heads_fitted"], line["clusters"]) == (4, 4, 3)
        at = mean[(mean["distance"] <= 100) & (mean["last"] >= 100)]["probability"]
        assert line["at_100"] == pytest.approx(float(at.iloc[0]))
        assert line["at_100_low"] < line["at_100"] < line["at_100_high"]
        assert np.isnan(line["at_1000"]) == (length < 1000)


def test_a_range_that_a_row_lacks_is_left_out(tables):
    for _, part in tables["distance"].groupby("length"):
        assert part["last"].max() < part["length"].iloc[0] - 1
        assert part["probability"].max() < 0.2  # 0.5 stands in the last one


def test_layers_are_there_at_the_longest_length_alone(tables):
    by_layer = tables["distance"][tables["distance"]["layer"].notna()]
    assert set(by_layer["length"]) == {4096}
    assert set(by_layer["layer"]) == {0, 1}


def test_heads_that_do_not_see_so_far_are_in_no_mean_of_those_that_do():
    lines = distances(((0, 0), (0, 1), (1, 0), (1, 1)), lengths=(4096,))
    sliding = (lines["layer"] == 1) & (lines["last"] >= 64)
    lines = lines[~sliding].assign(label="m", cluster=lines["sample"])
    (curves,) = curves_of(lines)
    assert curves.whole_H.tolist() == [True, True, False, False]
    how = settings.fits(settings.analysis())
    (tables,) = [study(Evidence(None, None, [], {"distance": lines.assign(**ABOUT)}), CONFIG, how)]
    mean, laws = tables["distance"], tables["distance_laws"].iloc[0]
    everywhere = mean[mean["layer"].isna()]
    first = curves.value_CHB[:, :2].mean((0, 1))
    np.testing.assert_allclose(everywhere.sort_values("distance")["probability"], first, rtol=1e-9)
    assert laws["heads"] == 2
    assert laws["heads_fitted"] == 2
    assert np.isfinite(laws["exponent"])
    of_sliding = mean[mean["layer"] == 1]
    assert of_sliding["last"].max() < 64
    assert of_sliding["probability"].notna().all()


def test_distances_below_the_fitted_range_have_no_law():
    lines = distances(((0, 0), (0, 1)), lengths=(8,)).assign(label="m", **ABOUT)
    lines = lines.assign(cluster=lines["sample"])
    how = settings.fits(settings.analysis())
    tables = study(Evidence(None, None, [], {"distance": lines}), CONFIG, how)
    assert tables["distance"]["last"].max() < CONFIG.fitted[0]
    law = tables["distance_laws"].iloc[0]
    assert (law["heads"], law["heads_fitted"]) == (2, 0)
    assert law[["fitted_from", "fitted_to", "exponent", "exponent_median"]].isna().all()
    assert tables["distance_heads"]["exponent"].isna().all()
    whole = distances(((0, 0), (0, 1)), lengths=(8, 512)).assign(label="m", **ABOUT)
    whole = whole.assign(cluster=whole["sample"])
    laws = study(Evidence(None, None, [], {"distance": whole}), CONFIG, how)["distance_laws"].set_index("length")
    assert laws.loc[8, ["fitted_from", "fitted_to"]].isna().all()
    assert CONFIG.fitted[0] <= laws.loc[512, "fitted_from"] < laws.loc[512, "fitted_to"] < 512
