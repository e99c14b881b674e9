"""Ctrl-C while the commands import and while they work: one line, status 130, and no half-written file."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# presses Ctrl-C when a module is first imported
HOOK = """
import os, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
"""


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("analysis", "pandas"),
        ("analysis", "analysis.pipeline"),
        ("analysis", "analysis.figures.windows"),  # imported when the figure is drawn
        ("analysis.budget", "analysis.statistics.equal_cost"),
        ("analysis.dashboard", "wandb"),
        ("analysis.published", "PIL"),
        ("analysis.quotes", "analysis.save"),
    ],
)
def test_ctrl_c_at_any_time_is_one_line(outputs, tmp_path, command, module):
    (tmp_path / "sitecustomize.py").write_text(HOOK.format(name=module))
    asked = {"analysis.budget": ["--model", "x"], "analysis.dashboard": ["--entity", "x"], "analysis.quotes": []}
    place = [] if command in ("analysis.quotes", "analysis.published") else ["--outputs", str(outputs)]
    force = ["--only", "windows", "--force"] if command == "analysis" else []
    done = subprocess.run(
        [sys.executable, "-m", command, *place, *asked.get(command, []), *force],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "stopped; what is made is kept, the same command continues\n"
    assert done.returncode == 130
    assert not list(outputs.rglob(".*.csv"))


def test_used_as_a_library_it_leaves_ctrl_c_alone():
    code = "import signal, analysis; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    heeds = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, preexec_fn=heeds)
