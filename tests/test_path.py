"""The Gaussian path, from the command line to a sealed record, can be read: at most 900 lines of code run on it."""

import sys
from collections import defaultdict
from pathlib import Path

import experiments
from experiments.launch import main
from experiments.records import folder
from experiments.schema import register

ROOT = str(Path(experiments.__file__).parent)
MOST = 900
OPTIMISED = 1  # a flag of functions, which class bodies lack


def test_the_gaussian_path_is_short(tmp_path, monkeypatch):
    arguments = ["source.lengths=[256,512]", "source.samples=1", "source.rows=8", "tracking=disabled"]
    monkeypatch.setattr("sys.argv", ["run.py", *arguments, f"outputs={tmp_path / 'first'}"])
    assert main() == 0  # what loads modules and compiles kernels at its first use is no part of the path
    monkeypatch.setattr("sys.argv", ["run.py", *arguments, f"outputs={tmp_path}"])
    register.cache_clear()  # which a command does once
    lines, sealed, seal = defaultdict(set), [], folder.seal

    def trace(frame, event, argument):
        if sealed or not frame.f_code.co_filename.startswith(ROOT) or not frame.f_code.co_flags & OPTIMISED:
            return None
        lines[frame.f_code.co_filename].add(frame.f_lineno)
        return trace

    def sealing(*arguments):
        seal(*arguments)
        sealed.append(True)

    monkeypatch.setattr(folder, "seal", sealing)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert main() == 0
    finally:
        sys.settrace(before)
    assert sealed
    count = sum(map(len, lines.values()))
    assert 300 < count <= MOST, count
