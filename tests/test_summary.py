"""What a sweep says at the terminal."""

import numpy as np
import pandas as pd
import pytest

from experiments import curves, summary

FACTS = {"label": "m", "length": 64, "mean_growth": None, "typical_growth": None, "dropped": None}


def cells(table):
    return [list(column.cells) for column in table.columns]


def test_two_models_of_one_label_are_two_lines():
    jobs = [
        FACTS | {"model": "a" * 64, "mean_window": 20.0, "typical_head": 10.0},
        FACTS | {"model": "b" * 64, "mean_window": 60.0, "typical_head": 30.0},
        FACTS | {"model": "b" * 64, "mean_window": 62.0, "typical_head": 32.0},
        FACTS | {"label": "Gaussian", "model": None, "mean_window": 5.0, "typical_head": 5.0, "mean_growth": 0.5},
    ]
    names, counts, _, mean, growth, typical, *_ = cells(summary.sweep_table(jobs))
    assert list(map(str, names)) == ["m (aaaaaa)", "m (bbbbbb)", "Gaussian"]
    assert counts == ["1", "2", "1"]
    assert mean == ["20", "61", "5"]
    assert typical == ["10", "31", "5"]
    assert growth == ["", "", "n^0.50"]


def rows_of(laws, lengths=(100, 200, 400, 800), sees=None):
    """Rows of heads whose k_min follows laws; the last head sees at most `sees` keys."""
    lines = []
    for head, (a, c) in enumerate(laws):
        for length in lengths:
            n = min(length, sees) if sees and head == len(laws) - 1 else length
            line = {"layer": 0, "head": head, "variant": "plain", "length": length, "n": n, "participation": 2.0}
            lines.append(line | {"k_min_0.1": a * n**c})
    return pd.DataFrame(lines)


def test_both_means_are_what_they_are_called():
    rows = rows_of([(1.0, 0.5), (4.0, 0.5)])
    windows = pd.DataFrame(columns=summary.WINDOW_COLUMNS)
    found = summary.findings(rows, windows)
    assert found["mean_window"] == pytest.approx(2.5 * 800**0.5)
    assert found["typical_head"] == pytest.approx(2 * 800**0.5)
    assert found["mean_growth"] == pytest.approx(0.5)
    assert found["typical_growth"] == pytest.approx(0.5)
    assert found["dropped"] is None
    table = summary.table(rows, windows.assign(dropped_mass=0.0), "title")
    assert [str(column.header) for column in table.columns[:3]] == ["length", "mean window", "typical head [10%, 90%]"]
    assert list(table.columns[1].cells)[-1] == f"{2.5 * 800**0.5:.0f}"
    assert list(table.columns[2].cells)[-1].startswith(f"{2 * 800**0.5:.0f} [")
    assert "n^0.50 in the mean window and like n^0.50 in the typical head" in summary.sentence(rows)


def test_the_means_part_where_one_head_grows_faster():
    of_mean, of_typical = summary.growth(rows_of([(1.0, 0.1), (1.0, 0.9)]))
    assert of_typical == pytest.approx(0.5)
    assert of_mean > 0.8


def test_heads_that_see_no_more_keys_are_in_no_growth():
    rows = rows_of([(1.0, 0.5), (1.0, 0.5), (9.0, 0.0)], sees=100)
    assert summary.growth(rows)[0] == pytest.approx(0.5)
    assert "1 of 3 heads see no more keys" in summary.sentence(rows)
    assert summary.growth(rows[rows["head"] == 2]) == (None, None)


def shuffled_rows():
    """Rows in no order: two layers of two heads, one of which sees at most 128 keys, with a gap."""
    draw = np.random.default_rng(0)
    places = [(layer, head, n) for layer in (0, 3) for head in (1, 2) for n in (64, 128, 256, 512)]
    rows = pd.DataFrame(places * 5, columns=["layer", "head", "length"])
    still = (rows["layer"] == 3) & (rows["head"] == 1)
    rows["n"] = rows["length"].where(~still, rows["length"].clip(upper=128))
    rows["k_min_0.1"] = draw.integers(1, 60, len(rows))
    rows["participation"] = draw.random(len(rows))
    rows.loc[7, "participation"] = np.nan
    return rows.sample(frac=1, random_state=1)


def test_means_of_heads_are_those_of_groups():
    rows = shuffled_rows()
    means = summary.HeadMeans.of(rows, ["k_min_0.1", "participation"])
    expected = rows.groupby(["layer", "head", "length"])[["k_min_0.1", "participation"]].mean()
    assert means.heads == 4
    assert means.lengths.tolist() == [64, 128, 256, 512]
    assert means.most[2].tolist() == [64, 128, 128, 128]
    for name, mean in means.mean.items():
        np.testing.assert_allclose(mean.ravel(), expected[name])
    assert summary.HeadMeans.of(rows[:0], ["k_min_0.1"]).heads == 0


def test_slopes_are_fitted_to_lengths_at_which_a_head_sees_more_keys():
    rows, expected = shuffled_rows(), []
    for _, head in rows.groupby(["layer", "head"]):
        of_length = head.groupby("length").agg({"n": "mean", "k_min_0.1": "mean"}).drop_duplicates("n")
        expected.append(np.polyfit(np.log(of_length["n"]), np.log(of_length["k_min_0.1"]), 1)[0])
    np.testing.assert_allclose(summary.slopes(rows), expected)
    assert summary.slopes(rows[rows["length"] == 64]) == []


def test_growth_is_that_of_the_full_layers_over_all_lengths():
    """A sliding head that grows at first and then stops says nothing of the longer lengths, and shortens none."""
    rows = rows_of([(1.0, 0.5), (1.0, 0.5), (9.0, 0.0)], sees=200)
    bent = rows["k_min_0.1"].where((rows["head"] == 2) | (rows["length"] < 400), 10 * rows["k_min_0.1"])
    of_mean, of_typical = summary.growth(rows.assign(**{"k_min_0.1": bent}))
    full = summary.growth(rows.assign(**{"k_min_0.1": bent})[rows["head"] < 2])
    assert (of_mean, of_typical) == pytest.approx(full)
    assert of_mean > 1


def windows_of(rules):
    """Windows of two methods by rule, parameter and scale."""
    lines = [
        {"selector": name, "variant": "plain", "length": 64, "rule": rule, "parameter": p, "scale": scale, "tv": p * tv}
        for name, tv in (("oracle", 0.1), ("h2o", 0.2))
        for rule, p, scale in rules
    ]
    return pd.DataFrame(lines)


def headers(rules):
    table = summary.selectors(windows_of(rules))
    return None if table is None else [str(column.header) for column in table.columns[1:]]


def test_methods_are_compared_within_whatever_was_measured():
    assert headers([("fixed", 8.0, 1.0), ("ada", 8.0, 1.0), ("top_p", 0.2, 1.0)]) == ["k = 8", "ada 8"]
    assert headers([("power", 0.5, 1.0), ("power", 0.5, 4.0)]) == ["n^0.5", "n^0.5 x 4"]
    assert headers([("top_p", 0.2, 1.0), ("grid", 8.0, 1.0)]) == ["top_p 0.2"]
    assert headers([("grid", 8.0, 1.0)]) is None


def test_curves_of_windows_that_do_not_grow_are_the_needs_alone():
    rows = rows_of([(1.0, 0.5), (4.0, 0.5)])
    columns = ["layer", "head", "variant", "length", "rule", "parameter", "scale", *curves.MEASURES]
    table = curves.curves_over_length(rows, pd.DataFrame(columns=columns))
    assert list(table.columns) == ["mean_window/0.1", "typical_head/0.1"]
    assert table.index.tolist() == [100, 200, 400, 800]


def test_growth_says_whose_it_is_where_some_heads_see_no_more():
    """Every other layer has a sliding window of 512 keys: its heads grow up to it, and are not in the slopes."""
    lengths = [256, 512, 1024, 2048]
    sees = {(layer, n): min(n, 512) if layer % 2 else n for layer in range(4) for n in lengths}
    power = {0: 0.8, 1: 0.3}
    lines = [
        {
            "layer": layer,
            "head": head,
            "variant": "plain",
            "length": n,
            "n": seen,
            summary.NEEDED: seen ** power[layer % 2],
        }
        for (layer, n), seen in sees.items()
        for head in range(3)
    ]
    told = summary.sentence(pd.DataFrame(lines))
    assert "n^0.80 in the mean window and like n^0.80 in the typical head" in told
    assert "Both means are of the 6 heads that see more keys at each length." in told
    full = pd.DataFrame([line for line in lines if line["layer"] % 2 == 0])
    assert "Both means" not in summary.sentence(full)


def test_the_lengths_named_are_those_over_which_rows_see_more_keys():
    rows = rows_of([(1.0, 0.5)], lengths=(8, 12, 16, 96, 200), sees=16)
    assert summary.sentence(rows) == (
        "Keys for a dropped mass of 0.1 grow like n^0.50 between 8 and 16 keys. A rough slope: few lengths."
    )
    pair = rows_of([(1.0, 0.5), (4.0, 0.5)], lengths=(8, 12, 16, 96, 200))
    assert "in the typical head between 8 and 200 keys" in summary.sentence(pair)
    assert "in the typical head between 8 and 16 keys" in summary.sentence(pair.assign(n=pair["n"].clip(upper=16)))
