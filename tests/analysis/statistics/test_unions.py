"""Keys needed together, from a record to the means that the figure shows."""

import pytest

from analysis import save
from analysis.statistics.laws import LAWS

LABEL = "TinyLM-Instruct"


@pytest.fixture(scope="module")
def tables(analysed):
    return {name: save.read_csv(analysed / "tables", name) for name in ("unions", "unions_laws", "unions_sources")}


def test_a_union_is_set_against_one_row_of_one_head(tables):
    table = tables["unions"].set_index(["eta", "scope", "rows", "size", "length"])
    for length in (256, 4096):
        one = table.loc[(0.1, "query head", 1, "k", length)]
        assert one["times"] == pytest.approx(1)
        assert table.loc[(0.1, "query head", 1, "union", length), "times"] == pytest.approx(1, abs=0.05)
        many = table.loc[(0.1, "KV head", 32, "union", length)]
        assert many["times"] == pytest.approx(many["k"] / one["k"])
        assert many["k"] > table.loc[(0.1, "query head", 32, "union", length), "k"] > one["k"]
        assert one["k_low"] <= one["k"] <= one["k_high"]


def test_every_size_has_its_laws(tables):
    laws = tables["unions_laws"]
    place = ["eta", "scope", "rows", "size"]
    assert laws.groupby(place).size().eq(len(LAWS)).all()
    assert set(laws["scope"]) == {"query head", "KV head"}
    assert (laws.loc[laws["scope"] == "KV head", "heads"] == 2).all()
    power = laws[laws["law"] == "power"].dropna(subset=["C"])
    assert len(power) > 20
    assert power["C"].between(0.2, 1.1).all()


def test_the_sources_say_how_many_rows_were_measured(tables):
    (source,) = tables["unions_sources"].to_dict("records")
    assert source["label"] == LABEL
    assert source["rows"] == 4 * 5 * 4 * 32  # heads, lengths, samples, rows of the longest run
    assert source["samples"] == 4
