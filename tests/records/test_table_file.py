"""A table is read back as it was measured, to float32, whatever the numbers; names are exact."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.errors import UserError
from experiments.records import table_file
from experiments.records.table_file import GrowingTable, read
from experiments.tables import Column, tables
from experiments.tables.windows import WINDOWS

LARGEST, TINIEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
measured = st.one_of(st.floats(-LARGEST, LARGEST), st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1e-38, 1e-45]))
named = st.floats()  # any at all
TABLES = [table for table in tables().values() if table.suffix == "parquet"]


def written(path, table, *groups):
    grown = GrowingTable(path, table)
    for group in groups:
        grown.append(group)
    grown.close()
    return path


def lines(table, count, draw):
    """Return random lines of a table, in the types that a runner has them in."""
    made = {
        "U": lambda: draw.choice(["plain", "no_sink", "plain, |x|^2"], count),
        "i": lambda: draw.integers(0, 2**31, count),
        "f": lambda: draw.normal(size=count),
        "b": lambda: draw.random(count) < 0.5,
    }
    return {name: made[np.dtype(column.type).kind]() for name, column in table.columns.items()}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_comes_back_in_the_declared_types(tmp_path, table, monkeypatch):
    monkeypatch.setattr(table_file, "LINES_HELD", 10)
    draw = np.random.default_rng(0)
    groups = [lines(table, 7, draw) for _ in range(5)]
    back = read(written(tmp_path / table.file, table, *groups), table)
    assert list(back) == list(table.columns)
    for name, column in table.columns.items():
        was = np.concatenate([group[name] for group in groups])
        if column.type == "str":
            assert back[name].astype(str).tolist() == was.tolist()
        else:
            assert str(back[name].dtype) == column.type
            np.testing.assert_array_equal(back[name], was.astype(column.type))


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.tuples(measured, measured, named), min_size=1, max_size=20))
def test_numbers_come_back_to_float32_and_names_exactly(tmp_path_factory, values):
    dropped, tv, parameter = map(np.array, zip(*values, strict=True))
    group = lines(WINDOWS, len(values), np.random.default_rng(0))
    group |= {"dropped_mass": dropped, "tv": tv, "parameter": parameter}
    back = read(written(tmp_path_factory.mktemp("t") / "windows.parquet", WINDOWS, group), WINDOWS)
    np.testing.assert_array_equal(back["parameter"], parameter)
    for name, was in (("dropped_mass", dropped), ("tv", tv)):
        shown = back[name].to_numpy()
        small = np.abs(was) < TINIEST
        np.testing.assert_array_equal(shown[small], 0)
        np.testing.assert_allclose(shown[~small], was[~small], rtol=6e-8)


def test_what_equals_another_column_is_null_in_the_file_and_filled(tmp_path):
    group = lines(WINDOWS, 4, np.random.default_rng(0))
    group |= {"dropped_mass": np.array([0.1, 0.2, 1.0, np.nan]), "tv": np.array([0.1, 0.3, np.nan, np.nan])}
    path = written(tmp_path / "windows.parquet", WINDOWS, group)
    assert pq.read_table(path)["tv"].is_null().to_pylist() == [True, False, False, False]  # NaN is a number here
    for columns in (None, ["tv"], ["k", "tv", "dropped_mass"]):
        np.testing.assert_allclose(read(path, WINDOWS, columns)["tv"], [0.1, 0.3, np.nan, np.nan], rtol=1e-7)
        assert columns is None or list(read(path, WINDOWS, columns)) == columns


def test_floats_are_split_and_names_are_dictionaries(tmp_path):
    path = written(tmp_path / "windows.parquet", WINDOWS, lines(WINDOWS, 1000, np.random.default_rng(0)))
    group = pq.ParquetFile(path).metadata.row_group(0)
    encodings = {group.column(i).path_in_schema: group.column(i).encodings for i in range(group.num_columns)}
    assert all(group.column(i).compression == "ZSTD" for i in range(group.num_columns))
    assert "BYTE_STREAM_SPLIT" in encodings["kl"]
    assert all("RLE_DICTIONARY" in encodings[name] for name in ("variant", "rule", "parameter", "layer"))


@pytest.mark.parametrize(
    ("column", "value"),
    [(Column("kl", "float32", ""), np.array([0.5, 1e39])), (Column("n", "int32", ""), np.array([1, 2**31]))],
)
def test_a_number_that_does_not_fit_is_refused(column, value):
    with pytest.raises(UserError, match=rf"{column.name} of .* cannot be recorded as {column.type}"):
        table_file.narrowed(value, column)


def test_older_files_are_read_in_the_declared_types_with_what_they_lack(tmp_path):
    group = lines(WINDOWS, 5, np.random.default_rng(0))
    old = pd.DataFrame(group).drop(columns=["selector", "failed", "normaliser_error"])
    old.to_parquet(tmp_path / "windows.parquet")
    back = read(tmp_path / "windows.parquet", WINDOWS)
    assert set(back["selector"]) == {"oracle"}
    assert (back["failed"] == 0).all()
    assert back["normaliser_error"].isna().all()
    assert {name: str(back[name].dtype) for name in ("tv", "parameter", "length")} == {
        "tv": "float32",
        "parameter": "float64",
        "length": "int32",
    }
    np.testing.assert_array_equal(back["tv"], group["tv"].astype(np.float32))
