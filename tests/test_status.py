"""`python -m experiments.status` tells finished from failed and stale, and removes what it is told to."""

import platform

import pytest

from experiments.launch import main
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
