"""The declared tables, and the page that is made of them."""

import numpy as np
import pytest

from experiments.tables import tables
from experiments.tables.__main__ import DOCS, page
from experiments.tables.losses import LOSSES


def test_the_page_is_what_the_declarations_say() -> None:
    assert DOCS.read_text(encoding="utf-8") == page(), "run python -m experiments.tables"


def test_no_table_names_a_column_twice() -> None:
    for table in tables().values():
        assert len(table.columns) == len(table.keys) + len(table.values), table.name


def lines() -> dict[str, np.ndarray]:
    return {
        name: np.array(["x"] if column.type == "str" else [1], dtype=column.type)
        for name, column in LOSSES.columns.items()
    }


def test_lines_are_what_is_declared() -> None:
    LOSSES.check(lines())
    without = {name: values for name, values in lines().items() if name != "loss"}
    with pytest.raises(ValueError, match=r"lacks \['loss'\]"):
        LOSSES.check(without)
    with pytest.raises(ValueError, match=r"does not declare \['more'\]"):
        LOSSES.check(lines() | {"more": np.array([1])})
    LOSSES.check(lines() | {"loss": np.array([1.0])})  # of a wider type
    with pytest.raises(ValueError, match="loss is int64, but float32 is declared"):
        LOSSES.check(lines() | {"loss": np.array([1])})
