"""Threads that wait sleep: every command sets it before torch is loaded, or a line says that it came too late."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ["source.lengths=[16]", "source.rows=2", "source.samples=1"]
MEASURE = "from experiments.machine import Machine; [Machine.from_settings('cpu', 1.0, {threads}) for _ in 'ab']"


def run(*arguments, **variables):
    """Run Python as one whose environment says nothing of OpenMP but what is given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT, env=environment | variables
    )


@pytest.mark.parametrize(
    "command",
    [
        ["run.py", "plan=true", *TINY],
        ["-m", "experiments.status", "--help"],
        ["-m", "experiments.tables"],
        ["-m", "analysis", "--help"],
        ["-m", "analysis.budget", "--help"],
        ["-m", "benchmarks", "--help"],
        ["-c", "import analysis; analysis.load('tests/records/before_17')"],
        ["-c", "import experiments.launch, torch"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_every_command_imports_experiments_before_torch(command, tmp_path):
    outputs = [f"outputs={tmp_path}"] if command[0] == "run.py" else []
    lines = run("-X", "importtime", *command, *outputs).stderr.splitlines()
    order = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    assert "experiments" in order
    if "torch._C" in order:
        assert order.index("experiments") < order.index("torch._C")
    assert not [line for line in lines if line.startswith("torch was imported")]


@pytest.mark.parametrize(
    ("code", "variables", "warnings"),
    [
        ("import torch; " + MEASURE.format(threads=2), {}, 1),
        (MEASURE.format(threads=2), {}, 0),
        ("import torch; " + MEASURE.format(threads=1), {}, 0),
        ("import torch; " + MEASURE.format(threads=2), {"OMP_WAIT_POLICY": "PASSIVE"}, 0),
        ("import torch; " + MEASURE.format(threads=2), {"OMP_WAIT_POLICY": "ACTIVE"}, 0),
        ("import torch, analysis; analysis.load('tests/records/before_17')", {}, 0),
    ],
)
def test_a_line_says_once_that_threads_spin(code, variables, warnings):
    assert run("-c", code, **variables).stderr.count("torch was imported before experiments") == warnings


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_the_policy_of_the_user_stays_and_goes_on_to_other_processes(given, policy):
    code = "import experiments, subprocess; subprocess.run(['printenv', 'OMP_WAIT_POLICY'])"
    assert run("-c", code, **given).stdout.strip() == policy


@pytest.mark.parametrize(
    "kernel", ["facts(torch.randn(300, 300))", "top_k_mask(torch.ones(9, 9), torch.ones(9).long())"]
)
def test_kernels_leave_torch_the_threads_that_it_was_given(kernel):
    """As numba starts, it sets the threads of OpenMP to every core, which torch shares with it."""
    code = "from experiments.measures.compute import Compute; import torch; torch.set_num_threads(1); "
    assert run("-c", code + f"Compute().{kernel}; print(torch.get_num_threads())").stdout.strip() == "1"
