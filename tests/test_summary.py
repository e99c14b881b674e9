"""What a sweep says at the terminal."""

from experiments import summary

FACTS = {"label": "m", "length": 64, "growth": None, "dropped": None}


def cells(table):
    return [list(column.cells) for column in table.columns]


def test_two_models_of_one_label_are_two_lines():
    jobs = [
        FACTS | {"model": "a" * 64, "keys": 10.0},
        FACTS | {"model": "b" * 64, "keys": 30.0},
        FACTS | {"model": "b" * 64, "keys": 32.0},
        {"label": "Gaussian", "model": None, "length": 64, "keys": 5.0, "growth": 0.5, "dropped": 0.1},
    ]
    names, counts, keys, *_ = cells(summary.sweep_table(jobs))
    assert list(map(str, names)) == ["m (aaaaaa)", "m (bbbbbb)", "Gaussian"]
    assert counts == ["1", "2", "1"]
    assert keys == ["10", "31", "5"]
