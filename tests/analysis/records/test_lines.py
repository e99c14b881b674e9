"""Only the columns asked for are read, a study gets no others, and float32 files give the numbers of float64 ones."""

import json

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import settings
from analysis.records import load as load_module
from analysis.records.evidence import TABLES, Records, columns_of, gather
from analysis.records.load import complete_runs
from experiments.records.folder import seal
from tests.analysis.synthetic import gaussian, write_run


@pytest.fixture
def outputs(tmp_path):
    rows, windows = gaussian((64, 128, 256, 512), 3, 4, s=0.5)
    other = windows.assign(selector="random", dropped_mass=0.5 + windows["dropped_mass"] / 2)
    write_run(tmp_path, "one", "G", rows, pd.concat([windows, other]), s=0.5)
    write_run(tmp_path, "two", "G, s = 0.8", *gaussian((64, 128, 256, 512), 3, 4, s=0.8), s=0.8)
    return tmp_path


def test_only_the_columns_asked_for_are_read(outputs, monkeypatch):
    read, chunks = set(), load_module.chunks
    monkeypatch.setattr(load_module, "chunks", lambda path, t, names: read.update(names) or chunks(path, t, names))
    every = analysis.load(outputs)
    read.clear()
    rows, windows = analysis.load(outputs, ["label", "n", "dropped_mass"])
    assert list(rows) == ["label", "n"]
    assert list(windows) == ["label", "n", "dropped_mass"]
    keys = {column.name for table in TABLES.values() for column in table.keys}
    measured = {column.name for table in TABLES.values() for column in table.columns.values()}
    assert read & measured == keys | {"n", "dropped_mass"}
    pd.testing.assert_frame_equal(windows, every[1][list(windows)])


def test_loaded_numbers_are_wide(outputs):
    for table in analysis.load(outputs):
        assert set(map(str, table.select_dtypes("number").dtypes)) <= {"int64", "float64"}


@pytest.mark.parametrize("name", settings.studies())
def test_a_study_gets_what_it_declares_and_no_more(outputs, name):
    config = settings.study(name)
    evidence = gather(config, Records(complete_runs(outputs)))
    for table, frame in zip(TABLES, (evidence.rows, evidence.windows), strict=True):
        assert set(frame) <= set(columns_of(config, table))


def test_a_label_with_the_usual_value_alone_is_left_out_where_a_study_compares(outputs):
    evidence = gather(settings.study("selectors"), Records(complete_runs(outputs)))
    assert set(evidence.windows["label"]) == {"G"}
    assert set(evidence.windows["selector"]) == {"oracle", "random"}
    assert gather(settings.study("leverage"), Records(complete_runs(outputs))).windows.empty


def test_files_of_float32_and_without_tv_give_the_same_numbers(outputs):
    before = analysis.load(outputs)
    for folder in (outputs / "runs").iterdir():
        for table in TABLES.values():
            frame = pd.read_parquet(folder / table.file)
            narrow = {name: c.type for name, c in table.columns.items() if name in frame and c.type == "float32"}
            frame = frame.astype(narrow)
            if "tv" in frame:
                frame["tv"] = frame["tv"].where(frame["tv"] != frame["dropped_mass"])
                assert frame["tv"].isna().any()
            frame.to_parquet(folder / table.file)
        seal(folder, json.loads((folder / "manifest.json").read_text()))
    for one, other in zip(before, analysis.load(outputs), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_n_is_of_the_rows_of_the_same_place(tmp_path):
    parts = [gaussian((64, 128), 3, 2, s=0.5, places=[(layer, 0)], sees=sees) for layer, sees in ((0, None), (1, 100))]
    rows, windows = (pd.concat(tables) for tables in zip(*parts, strict=True))
    write_run(tmp_path, "r", "M", rows.sample(frac=1, random_state=0), windows, source="smollm2")
    loaded = analysis.load(tmp_path)[1]
    expected = np.where(loaded["layer"] == 1, np.minimum(loaded["length"], 100), loaded["length"])
    np.testing.assert_array_equal(loaded["n"], expected)
