"""What a watcher sees of running jobs."""

import os
import signal
import sys

import pytest
from rich.console import Console

from experiments.progress import OUTCOME, Progress, Watch, interruptible, read_json, write_json
from experiments.terminal import terminal


def shown(watch):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(watch._lines())
    return capture.get()


def test_one_line_per_running_job_and_a_total(tmp_path):
    for number, status in enumerate(["measured", "started", "started"]):
        (tmp_path / str(number)).mkdir()
        write_json(tmp_path / str(number) / OUTCOME, {"status": status})
    for number in (1, 2):
        progress = Progress(tmp_path / str(number), f"model {number}", 8)
        for _ in range(4):
            progress._written = 0.0  # as if time had passed
            progress.advance()
    out = shown(Watch(lambda: sorted(tmp_path.rglob(OUTCOME)), lambda: 5, Console()))
    assert [line.split()[:2] for line in out.splitlines()] == [["model", "1"], ["model", "2"], ["all", "jobs"]]
    assert out.count("4/8") == 2
    assert "1/5" in out
    assert "left" in out


def test_a_torn_file_is_no_progress(tmp_path):
    (tmp_path / "x.json").write_text('{"done": ')
    assert read_json(tmp_path / "x.json") == {}
    assert read_json(tmp_path / "none.json") == {}


def test_a_file_nested_too_deeply_and_a_pipe_are_no_progress(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000 + "]" * 200_000)
    os.mkfifo(tmp_path / "pipe.json")
    assert read_json(tmp_path / "deep.json") == read_json(tmp_path / "pipe.json") == {}


def test_a_label_with_brackets_is_shown_as_it_is(tmp_path):
    path = tmp_path / OUTCOME
    write_json(path, {"status": "started"})
    Progress(tmp_path, "x[/y]", 2).advance()
    console = terminal(width=100)
    with console.capture() as capture:
        console.print(Watch(lambda: [path], lambda: 1, console)._lines())
    assert "x[/y]" in capture.get()


def test_a_launch_without_jobs_has_a_total(tmp_path):
    assert "0/1" in shown(Watch(list, lambda: 0, Console()))


def test_a_ctrl_c_that_python_drops_ends_the_job_at_its_next_group(tmp_path, monkeypatch):
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    progress = Progress(tmp_path, "job", 2)
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: None)
    with interruptible():
        progress.advance()
        Dropped()
        with pytest.raises(KeyboardInterrupt):
            progress.advance()
