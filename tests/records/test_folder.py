"""A record is complete or absent, whatever happens while it is written."""

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from experiments.errors import UserError
from experiments.records import folder as folder_module
from experiments.records import table_file
from experiments.records.folder import finished, inspect, new_record, run_folder, seal
from experiments.records.identity import SCHEMA_VERSION
from experiments.records.table_file import read
from experiments.tables.attention import ATTENTION
from experiments.tables.rows import ROWS
from experiments.tables.windows import WINDOWS

MANIFEST = {"status": "complete", "run_id": "abc", "schema": SCHEMA_VERSION}


TABLES = (ROWS, WINDOWS, ATTENTION)


def lines(table, count, value):
    """Return lines of a table, numbers and names of one value."""
    columns = table.columns.values()
    return {c.name: np.array(["power"] * count if c.type == "str" else [value] * count, dtype=c.type) for c in columns}


def write(folder, value=1.0, groups=3, replace=False):
    with new_record(folder, TABLES, replace=replace) as record:
        for _ in range(groups):
            record.append(ROWS, lines(ROWS, 4, value))
        record.append(WINDOWS, lines(WINDOWS, 2, value))
        facts = {"layer": 0, "head": 0, "sample": 0, "length": 2, "query_pool": 1, "key_pool": 1, "kind": "full"}
        record.add_matrix(ATTENTION, torch.eye(2, dtype=torch.float16), facts)
        record.close("seed: 0\n", lambda: MANIFEST)


def test_a_finished_record_has_all_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "LINES_HELD", 8)
    folder = run_folder(tmp_path, "abc")
    write(folder)
    assert finished(folder)["status"] == "complete"
    assert sorted(path.name for path in folder.iterdir()) == [
        "attention.safetensors",
        "config.yaml",
        "manifest.json",
        "rows.parquet",
        "windows.parquet",
    ]
    rows = read(folder / "rows.parquet", ROWS)
    assert len(rows) == 12
    assert set(rows["variant"]) == {"power"}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_record_leaves_nothing(tmp_path, error):
    folder = run_folder(tmp_path, "abc")

    def interrupted():
        with new_record(folder, TABLES) as record:
            record.append(ROWS, lines(ROWS, 3, 0.0))
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(folder.parent.iterdir()) == []
    assert finished(folder) is None


def test_a_record_is_replaced_in_one_step_and_kept_when_the_new_one_fails(tmp_path):
    folder = run_folder(tmp_path, "abc")
    write(folder, 1.0)
    with pytest.raises(UserError, match="full"), new_record(folder, TABLES):
        raise OSError(28, "disk full")
    assert read(folder / "rows.parquet", ROWS)["n"].max() == 1.0
    write(folder, 2.0, replace=True)
    assert read(folder / "rows.parquet", ROWS)["n"].max() == 2.0
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"status": "running"}', '{"other": 1}'])
def test_a_torn_manifest_is_no_finished_run(tmp_path, manifest):
    folder = run_folder(tmp_path, "abc")
    write(folder)
    (folder / "manifest.json").write_text(manifest)
    assert finished(folder) is None


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="outputs="):
        write(run_folder(tmp_path, "abc"))


def test_manifests_are_json(tmp_path):
    folder = run_folder(tmp_path, "abc")
    write(folder)
    assert json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("name", ["rows.parquet", "windows.parquet", "attention.safetensors", "config.yaml"])
def test_a_file_that_is_not_the_one_written_is_found_out(tmp_path, name):
    folder = run_folder(tmp_path, "abc")
    write(folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert finished(folder) is None
    assert name in folder_module.inspect(folder)[1]


def test_of_two_that_finish_the_same_run_the_first_stays(tmp_path):
    folder = run_folder(tmp_path, "abc")
    with new_record(folder, TABLES) as slower:
        write(folder, 1.0)
        slower.append(ROWS, lines(ROWS, 4, 2.0))
        slower.append(WINDOWS, lines(WINDOWS, 2, 2.0))
        slower.close("seed: 0\n", lambda: MANIFEST)
    assert read(folder / "rows.parquet", ROWS)["n"].max() == 1.0
    assert list(folder.parent.iterdir()) == [folder]


def test_replacing_is_asked_for_or_due_to_damage(tmp_path):
    folder = run_folder(tmp_path, "abc")
    write(folder, 1.0)
    (folder / "rows.parquet").write_bytes(b"torn")
    write(folder, 2.0)
    assert read(folder / "rows.parquet", ROWS)["n"].max() == 2.0
    assert list(folder.parent.iterdir()) == [folder]


def test_a_record_is_put_back_that_was_being_replaced_when_the_job_was_killed(tmp_path):
    folder = run_folder(tmp_path, "abc")
    write(folder)
    left = folder.with_name(f".partial-abc-{platform.node()}-999999999-x{folder_module.REPLACED}")
    folder.rename(left)
    folder_module.tidy(folder)
    assert finished(folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_record_in_the_folder_of_another_run_is_not_that_run(tmp_path):
    write(run_folder(tmp_path, "abc"))
    run_folder(tmp_path, "abc").rename(run_folder(tmp_path, "def"))
    assert inspect(run_folder(tmp_path, "def")) == (None, "it is the record of run abc")


@pytest.mark.parametrize("schema", [0, SCHEMA_VERSION + 1, None])
def test_a_record_of_another_schema_is_not_finished(tmp_path, schema):
    folder = run_folder(tmp_path, "abc")
    write(folder)
    seal(folder, MANIFEST | {"schema": schema})
    assert inspect(folder) == (None, f"schema {schema}, now {SCHEMA_VERSION}")


def test_a_manifest_nested_too_deeply_and_a_pipe_in_its_place_are_damage(tmp_path):
    folder = run_folder(tmp_path, "abc")
    write(folder)
    (folder / "manifest.json").write_text("[" * 200_000 + "]" * 200_000)
    assert inspect(folder)[1].startswith("RecursionError")
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    assert "no file" in inspect(folder)[1]


def test_a_record_without_a_line_is_never_sealed(tmp_path):
    folder = run_folder(tmp_path, "abc")

    def empty():
        with new_record(folder, TABLES) as record:
            record.append(ROWS, lines(ROWS, 0, 0.0))
            record.close("seed: 0\n", lambda: MANIFEST)

    with pytest.raises(UserError, match="nothing was measured"):
        empty()
    assert list(folder.parent.iterdir()) == []


def test_a_draft_is_left_alone_while_its_lock_is_held_whatever_machine_and_process_it_names(tmp_path):
    """Two containers share a hostname, and the process of the one is no process of the other."""
    folder = run_folder(tmp_path, "abc")
    draft = folder.with_name(f".partial-abc-{platform.node()}-999999999-x")
    draft.mkdir(parents=True)
    holder = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(draft / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        folder_module.tidy(folder)
        assert folder_module.abandoned(folder.parent) == []
        assert draft.exists()
    folder_module.tidy(folder)
    assert not draft.exists()


def test_a_draft_of_a_killed_job_of_another_machine_is_removed(tmp_path):
    folder = run_folder(tmp_path, "abc")
    draft = folder.with_name(".partial-abc-elsewhere-1-x")
    draft.mkdir(parents=True)
    (draft / "lock").touch()
    assert folder_module.abandoned(folder.parent) == [draft]
    folder_module.tidy(folder)
    assert not draft.exists()


def test_a_draft_that_is_being_written_holds_its_lock(tmp_path):
    folder = run_folder(tmp_path, "abc")
    with new_record(folder, TABLES) as record:
        folder_module.tidy(folder)
        assert folder_module.abandoned(folder.parent) == []
        record.append(ROWS, lines(ROWS, 1, 0.0))
        record.close("seed: 0\n", lambda: MANIFEST)
    assert finished(folder)


def test_files_and_the_names_of_a_record_are_on_disk_before_it_counts_as_finished(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(folder_module, "sync", lambda path: synced.append(path.name))
    write(run_folder(tmp_path, "abc"))
    draft = synced.index(next(name for name in synced if name.startswith(".partial-")))
    assert {"rows.parquet", "windows.parquet", "config.yaml", "manifest.json"} <= set(synced[:draft])
    assert synced[draft + 1 :] == ["abc", "runs", tmp_path.name]


def test_what_other_machines_and_living_jobs_write_is_left_alone(tmp_path):
    runs = run_folder(tmp_path, "abc").parent
    for name in (".partial-abc-elsewhere-999999999-x", f".partial-abc-{platform.node()}-{os.getpid()}-x"):
        (runs / name).mkdir(parents=True)
    folder_module.tidy(run_folder(tmp_path, "abc"))
    assert len(list(runs.iterdir())) == 2
