"""What a watcher sees of running jobs."""

import io
import os
import re
import signal
import sys

import pytest
from rich.console import Console

from experiments.command.launches import Launch, Launches
from experiments.command.progress import OUTCOME, Progress, Watch, interruptible
from experiments.command.terminal import terminal
from experiments.durable import read_json, write_json


def shown(watch, width=100):
    console = Console(width=width)
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


def test_lines_say_what_tells_their_jobs_apart(tmp_path):
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        command = f"python run.py source.rows=4 seed={seed} 'windows.exponents=[0.{seed}]'"
        write_json(tmp_path / str(seed) / OUTCOME, {"status": "started", "command": command})
        Progress(tmp_path / str(seed), "a model", 8)
    swept = {f"seed={seed}" for seed in (1, 2)} | {f"windows.exponents=[0.{seed}]" for seed in (1, 2)}
    watch = Watch(lambda: sorted(tmp_path.rglob(OUTCOME)), lambda: 2, Console(width=120), lambda: swept)
    first, second, _ = shown(watch, width=120).splitlines()
    assert first.startswith("a model seed=1 windows.exponents=[0.1] ")
    assert second.startswith("a model seed=2 windows.exponents=[0.2] ")
    narrow = shown(Watch(lambda: sorted(tmp_path.rglob(OUTCOME)), lambda: 2, Console(width=80), lambda: swept), 80)
    assert len(narrow.splitlines()) == 3
    assert "0/8" in narrow


def test_results_are_printed_above_the_live_lines_which_are_gone_at_the_end(tmp_path):
    """Read as a terminal shows it: carriage returns, lines up and erased lines are carried out."""
    write_json(tmp_path / OUTCOME, {"status": "started", "command": "python run.py"})
    Progress(tmp_path, "a model", 8)
    file = io.StringIO()
    launches = Launches(console=terminal(file=file, force_terminal=True, width=80))
    launches.add(Launch(tmp_path, OUTCOME, lambda: 1))
    (tmp_path / OUTCOME).touch()
    launches._watches[-1]._live.refresh()
    launches.console.print("a result")
    launches._watches[-1]._live.refresh()
    launches.stop_watching()
    launches.console.print("the end")
    assert "all jobs" in file.getvalue()
    assert [line for line in seen(file.getvalue()) if line.strip()] == ["a result", "the end"]


def seen(written):
    """Return the lines of a terminal after what was written to it."""
    lines, at = [""], 0
    for up, erase, other, text in re.findall(
        r"\x1b\[(\d*)A|(\x1b\[2K)|\x1b\[[?\d;]*[a-zA-Z]|(\r|\n)|([^\x1b\r\n]+)", written
    ):
        if erase:
            lines[at] = ""
        elif other == "\n":
            at += 1
            lines += [""] * (at + 1 - len(lines))
        elif text:
            lines[at] += text
        elif up:
            at -= int(up)
    return lines


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
