"""Records of schema 1, made by the code before run ids said which code made them, are read, listed and kept."""

import json
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis.records.load import complete_runs, load, load_task
from experiments.machine import Machine
from experiments.records.folder import Record
from experiments.records.identity import run_id
from experiments.records.table_file import read
from experiments.status import entries
from experiments.status import main as status
from experiments.tables.rows import ROWS
from experiments.tables.windows import WINDOWS

BEFORE = Path(__file__).parent / "before_17"
GAUSSIAN, LANGUAGE = "037362194fb63e53", "a0dc2f196d3164d8"


@pytest.fixture
def outputs(tmp_path):
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_rows_and_losses_are_read(outputs):
    runs = complete_runs(outputs)
    assert {run.id for run in runs} == {GAUSSIAN, LANGUAGE}
    rows, windows = load(outputs)
    assert set(rows["run"]) == {GAUSSIAN}
    assert len(rows) == 2 * 2 * 2  # lengths, samples, rows
    assert sorted(windows["rule"].unique()) == ["fixed", "power", "threshold", "top_p"]
    assert set(windows["selector"]) == {"oracle"}
    losses = load_task(runs, "losses")
    assert losses.groupby("rule", observed=True)["loss"].size().to_dict() == {"dense": 62, "fixed": 62, "power": 62}
    assert losses["loss"].notna().all()


def test_they_are_listed_as_finished_and_stay(outputs, capsys):
    assert status(["--outputs", str(outputs), "--remove", "stale"]) == 0
    assert "schema 1: the analysis reads it, run.py measures it anew" in capsys.readouterr().out
    listed = entries(outputs)
    assert [(entry.state, entry.folder.name) for entry in listed] == [("finished", GAUSSIAN), ("finished", LANGUAGE)]


def test_a_damaged_one_is_stale(outputs):
    (outputs / "runs" / GAUSSIAN / "rows.parquet").write_bytes(b"torn")
    assert {entry.folder.name: entry.state for entry in entries(outputs)}[GAUSSIAN] == "stale"


def test_the_same_job_is_measured_anew_and_gives_the_same_numbers(tmp_path, job):
    """Its id holds the schema, so that no record of an older one is taken for it."""
    before = BEFORE / "runs" / GAUSSIAN
    manifest = json.loads((before / "manifest.json").read_text())
    anew = job(*shlex.split(manifest["command"])[2:])
    assert run_id(anew) != GAUSSIAN
    record = Record(tmp_path, anew.runner.tables)
    machine = Machine.from_settings("cpu", 1.0, None)
    anew.runner.run(anew.source, anew.selector, anew.windows, machine, anew.seed, record, lambda: None)
    record.close("", dict)
    for table in (ROWS, WINDOWS):
        old, new = pd.read_parquet(before / table.file), read(tmp_path / table.file, table)
        # float32, which another processor rounds elsewhere
        pd.testing.assert_frame_equal(
            new[old.columns], old, check_dtype=False, check_categorical=False, rtol=1e-4, atol=1e-5
        )
