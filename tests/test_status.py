"""`python -m experiments.status` tells finished from failed and stale, and removes what it is told to."""

import contextlib
import json
import platform

import pytest

from experiments.errors import UserError
from experiments.launch import main
from experiments.progress import OUTCOME, Progress, write_json
from experiments.records.folder import new_record
from experiments.status import entries
from experiments.status import main as status

TINY = ["source.lengths=[16,32]", "source.rows=2", "source.samples=1", "tracking=disabled"]


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Two finished runs, a failed job, a damaged record and what a killed job left."""
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, "-m", "seed=0,1,2", f"outputs={tmp_path}"])
    assert main() == 0
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, "source.rows=0", f"outputs={tmp_path}"])
    assert main() == 1
    damaged = sorted((tmp_path / "runs").iterdir())[0]
    (damaged / "rows.parquet").write_bytes(b"torn")
    (tmp_path / "runs" / f".partial-abc-{platform.node()}-999999999-x").mkdir()
    return tmp_path


def states(outputs):
    return sorted(entry.state for entry in entries(outputs))


def test_every_state_is_listed(outputs, capsys):
    assert states(outputs) == ["failed", "finished", "finished", "stale", "stale"]
    assert status(["--outputs", str(outputs)]) == 0
    out = capsys.readouterr().out
    assert "2 finished, 0 running, 1 failed, 2 stale" in out
    assert "source.rows=0" in out
    assert "rows.parquet is not the file that was written" in out


def test_a_plan_that_failed_is_no_failed_job(outputs, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, "source.rows=-7", "plan=1", f"outputs={outputs}"])
    assert main() == 1
    (outputs / "jobs" / "old").mkdir()
    write_json(outputs / "jobs" / "old" / OUTCOME, {"status": "failed", "command": "python run.py plan=true"})
    assert states(outputs).count("failed") == 1


def test_a_running_job_says_how_far_it_is(outputs, tmp_path, capsys):
    job = outputs / "jobs" / "now"
    job.mkdir()
    command = "python run.py seed=7 'windows.exponents=[0.3]'"
    write_json(job / OUTCOME, {"status": "started", "command": command})
    with contextlib.suppress(UserError), new_record(outputs / "runs" / "feed", []) as record:
        progress = Progress(job, "a model", 8, "feed")
        assert entry_of(outputs, "running").done == 0
        for _ in range(3):
            progress._written = 0.0  # as if time had passed
            progress.advance()
        entry = entry_of(outputs, "running")
        assert (entry.label, entry.done, entry.groups) == ("a model", 3, 8)
        assert status(["--outputs", str(outputs), "--json", "--match", "SEED=7"]) == 0
        (listed,) = json.loads(capsys.readouterr().out)
        assert (listed["state"], listed["done"], listed["groups"]) == ("running", 3, 8)
        assert "3/8 groups, about " in listed["note"]
        assert command in listed["note"]
        record.close("", dict)  # nothing was measured, and nothing is left


def entry_of(outputs, state):
    (entry,) = [entry for entry in entries(outputs) if entry.state == state]
    return entry


def test_finished_runs_say_what_tells_them_apart_and_nothing_else(tmp_path, monkeypatch):
    for words in (["seed=0"], ["seed=1"], ["seed=1", "windows.exponents=[0.25]", "threads=1"], ["source.s=0.8"]):
        monkeypatch.setattr("sys.argv", ["run.py", *TINY, *words, f"outputs={tmp_path}"])
        assert main() == 0
    notes = [(entry.label, entry.note) for entry in entries(tmp_path)]
    assert sorted(notes) == [
        ("Gaussian, s = 0.5", "seed=0"),
        ("Gaussian, s = 0.5", "seed=1"),
        ("Gaussian, s = 0.5", "seed=1 windows.exponents=[0.25]"),
        ("Gaussian, s = 0.8", ""),
    ]


def test_several_states_and_a_text(outputs, capsys):
    assert status(["--outputs", str(outputs), "--only", "failed", "stale", "--json"]) == 0
    assert sorted(entry["state"] for entry in json.loads(capsys.readouterr().out)) == ["failed", "stale", "stale"]
    assert status(["--outputs", str(outputs), "--match", "rows=0", "--json"]) == 0
    assert [entry["state"] for entry in json.loads(capsys.readouterr().out)] == ["failed"]


def test_one_state_alone(outputs, capsys):
    assert status(["--outputs", str(outputs), "--only", "failed"]) == 0
    assert "torn" not in capsys.readouterr().out


def test_stale_and_failed_are_removed_and_finished_stay(outputs, capsys):
    assert status(["--outputs", str(outputs), "--remove", "stale"]) == 0
    assert states(outputs) == ["failed", "finished", "finished"]
    assert status(["--outputs", str(outputs), "--remove", "failed"]) == 0
    assert states(outputs) == ["finished", "finished"]
    assert "1 failed removed" in capsys.readouterr().out


def test_a_failure_that_was_mended_is_no_failure(tmp_path, monkeypatch):
    command = ["run.py", *TINY, f"outputs={tmp_path}"]
    with monkeypatch.context() as broken:
        broken.setattr("sys.argv", command)
        broken.setattr("experiments.measures.measure.measure_rows", lambda *_: 1 / 0)
        assert main() == 1
    assert states(tmp_path) == ["failed"]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    assert states(tmp_path) == ["finished"]


def test_no_outputs_is_one_line(tmp_path, capsys):
    assert status(["--outputs", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
