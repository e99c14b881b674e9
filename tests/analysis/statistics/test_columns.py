"""Recall of static columns whose means are known."""

import numpy as np
import pytest

from analysis import settings
from analysis.statistics.columns import by_head, recall
from tests.analysis.synthetic import columns

HOW = settings.fits(settings.analysis())
PLACES = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.fixture
def lines():
    frame = columns(PLACES)
    return frame.assign(label="m", cluster="run:" + frame["sample"].astype(str))


def test_every_way_is_judged_by_the_samples_that_have_another_before_them(lines):
    table = recall(lines, HOW).set_index(["length", "k", "chosen"])
    assert (table["clusters"] == 3).all()
    assert (table["heads"] == 4).all()
    best = (64 / 2048) ** 0.2 * np.mean([1 - 0.02 * s - 0.05 * h for s in (1, 2, 3) for h in (0, 1)])
    for way, factor in (("same_rows", 1.0), ("earlier_rows", 0.9), ("other_text", 0.5), ("each_row", 1.1)):
        line = table.loc[(2048, 64, way)]
        assert line["recall"] == pytest.approx(factor * best)
        assert line["recall_low"] < line["recall"] < line["recall_high"]
        assert line["recall_25"] <= line["recall_50"] <= line["recall_75"]
        assert line["lost"] == pytest.approx((1 - factor) * best)
    assert table.loc[(2048, 64, "other_text")]["lost_low"] > 0


def test_heads_are_compared_at_a_share_of_the_longest_context(lines):
    table = by_head(lines, 1 / 32)
    assert len(table) == 4
    assert set(table["k"]) == {64}
    np.testing.assert_allclose(table["other_text"], table["same_rows"] / 2)
    assert by_head(lines, 1 / 3).empty


def test_a_single_sample_has_no_other_text(lines):
    table = recall(lines[lines["sample"] == 0], HOW)
    assert set(table["chosen"]) == {"same_rows", "earlier_rows", "each_row"}
    assert table["recall_low"].isna().all()
