"""`python -m experiments.status` tells finished from failed and stale, and removes what it is told to."""

import contextlib
import json
import os
import platform
import shutil

import pytest

from experiments.command.progress import OUTCOME, Progress
from experiments.durable import write_json
from experiments.errors import UserError
from experiments.launch import main
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


def last(outputs, capsys, *words):
    assert status(["--outputs", str(outputs), "--last", "--json", *words]) == 0
    (launch,) = json.loads(capsys.readouterr().out)
    return launch


def test_the_newest_launch_says_what_became_of_each_job(tmp_path, monkeypatch, capsys):
    for seeds in ("seed=0,1", "seed=1,7"):
        monkeypatch.setattr("sys.argv", ["run.py", "-m", *TINY, seeds, "source.rows=2,-1", f"outputs={tmp_path}"])
        assert main() == 1
    capsys.readouterr()
    launch = last(tmp_path, capsys)
    counts = [launch[name] for name in ("jobs", "measured", "found", "planned", "running", "not_begun")]
    assert counts == [4, 1, 1, 0, 0, 0]
    assert len(launch["failures"]) == 2
    assert "seed=1,7" in launch["words"]
    assert not launch["runs"]
    assert launch["seconds"] > 0
    assert status(["--outputs", str(tmp_path), "--last"]) == 0
    out = capsys.readouterr().out
    assert "4 jobs: 1 measured, 1 measured before, 2 failed" in out
    assert out.count("error: source.rows=-1: give a number") == 2  # each with the command that repeats it alone
    assert out.count(f"source.rows=-1 source.samples=1 tracking=disabled seed=7 outputs={tmp_path}") == 1
    assert status(["--outputs", str(tmp_path), "--launches", "--json"]) == 0
    newest, oldest = json.loads(capsys.readouterr().out)
    assert (newest["folder"], oldest["measured"]) == (launch["folder"], 2)
    assert last(tmp_path, capsys, "--match", "SEED=0,1")["folder"] == oldest["folder"]
    assert status(["--outputs", str(tmp_path), "--launches"]) == 0
    assert "there already" in capsys.readouterr().out


def test_jobs_that_wait_were_killed_or_never_began(tmp_path, capsys):
    sweep, job = tmp_path / "jobs" / "day" / "time", {"node": platform.node(), "command": "python run.py seed=3"}
    about = {"words": ["seed=range(0,8)"], "jobs": 8, "began": 1e9, "node": platform.node()}
    (sweep / "3").mkdir(parents=True)
    write_json(sweep / "3" / OUTCOME, {"status": "started", "pid": 999999999, **job})
    write_json(sweep / "sweep.json", about | {"pid": os.getpid()})
    launch = last(tmp_path, capsys)
    assert launch["runs"]
    assert launch["failures"][0]["error"] == "ended without a word: killed, or out of memory"
    assert launch["not_begun"] == 7
    status(["--outputs", str(tmp_path), "--last"])
    assert "1 failed, 7 waiting" in capsys.readouterr().out
    write_json(sweep / "sweep.json", about | {"pid": 999999999})
    status(["--outputs", str(tmp_path), "--last"])
    assert "1 failed, 7 never began" in capsys.readouterr().out
    write_json(sweep / "3" / OUTCOME, {"status": "started", "pid": os.getpid(), **job})
    assert (last(tmp_path, capsys)["running"], last(tmp_path, capsys)["failures"]) == (1, [])


def test_a_launch_that_noted_less_is_told_by_its_jobs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", "-m", *TINY, "seed=0,1", f"outputs={tmp_path / 'there'}"])
    assert main() == 0
    capsys.readouterr()
    for path in (tmp_path / "there" / "jobs").rglob("sweep.json"):
        path.unlink()
    for path in (tmp_path / "there" / "jobs").rglob(OUTCOME):
        outcome = json.loads(path.read_text())
        write_json(path, {name: outcome[name] for name in outcome if name not in ("began", "ended")})
    shutil.copytree(tmp_path / "there", tmp_path / "copy")
    there, copy = (last(tmp_path / name, capsys) for name in ("there", "copy"))
    assert (there["jobs"], there["measured"]) == (2, 2)
    assert "tracking=disabled" in there["words"]
    assert not any(word.startswith("seed") for word in there["words"])
    assert there["seconds"] == copy["seconds"] > 0  # whenever it was copied
    assert there["began"] == copy["began"] is not None


def test_nothing_that_matches_is_said_and_totals_are_of_what_does(outputs, capsys):
    assert status(["--outputs", str(outputs), "--match", "nowhere"]) == 0
    assert capsys.readouterr().out.strip() == f"no run in {outputs} has 'nowhere' in it"
    assert status(["--outputs", str(outputs), "--match", "seed="]) == 0
    assert "2 finished, 0 running, 0 failed, 0 stale" in capsys.readouterr().out
    assert status(["--outputs", str(outputs), "--launches", "--match", "nowhere"]) == 0
    assert "no launch" in capsys.readouterr().out
    assert status(["--outputs", str(outputs), "--last", "--only", "failed"]) == 1
    assert capsys.readouterr().err.startswith("error: --only")
