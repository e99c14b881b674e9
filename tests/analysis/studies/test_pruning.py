"""The study of pruned weights on records of known numbers."""

import numpy as np
import pandas as pd
import pytest

from analysis import save
from tests.analysis.synthetic import pruned


@pytest.fixture(scope="module")
def tables(analysed):
    return {name: save.read_csv(analysed / "tables", name) for name in ("pruning", "pruning_layers", "pruning_sources")}


def test_errors_are_means_over_samples_and_heads_within_their_intervals(tables):
    lines = pruned()["pruning"]
    for name, by in (("pruning", []), ("pruning_layers", ["layer"])):
        keys = ["criterion", "share", *by]
        table = tables[name].set_index(keys)
        assert len(table) == 4 * (2 if by else 1)
        for measure in ("tv", "output_error"):
            expected = lines.groupby(keys)[measure].mean()
            pd.testing.assert_series_equal(table[measure].sort_index(), expected.sort_index())
            assert (table[f"{measure}_low"] < table[measure]).all()
            assert (table[f"{measure}_high"] > table[measure]).all()


def test_a_loss_is_paired_with_the_dense_one_of_its_sample(tables):
    for _, line in tables["pruning"].iterrows():
        factor = {"magnitude": 2.0, "wanda": 1.0}[line["criterion"]] * (1 - line["share"])
        lost = factor * (1 + 0.1 * np.arange(3))
        assert line["loss_dense"] == pytest.approx(4.0)
        assert line["loss"] == pytest.approx(4.0 + lost.mean())
        half = 4.302653 * lost.std(ddof=1) / np.sqrt(3)  # of Student with 2 degrees of freedom
        ends = line[["loss_increase_low", "loss_increase", "loss_increase_high"]].astype(float).tolist()
        assert ends == pytest.approx([lost.mean() - half, lost.mean(), lost.mean() + half])


def test_each_row_is_counted_once(tables):
    (source,) = tables["pruning_sources"].to_dict("records")
    assert (source["rows"], source["samples"], source["heads"]) == (16 * 3 * 4, 3, 4)
