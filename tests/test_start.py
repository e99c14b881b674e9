"""Help, a list of runs, and whatever is refused before a job begins: none of it waits for the packages that compute."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.lazy import Lazy

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests" / "records" / "before_17"
HEAVY = ("torch", "numba", "transformers", "scipy", "pandas", "pyarrow", "numpy", "matplotlib", "wandb")


def imported(*arguments):
    """Run Python and return the process and the packages it has imported, as its own import system tells them."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, cwd=ROOT)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 100
    return done, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["experiment=quick", "--help"],
        ["--cfg", "job"],
        ["experiment=checkpoint", "--cfg", "job", "--resolve"],
        ["--info", "searchpath"],
        ["--hydra-help"],
    ],
    ids=" ".join,
)
def test_what_is_only_shown_needs_no_heavy_package(command):
    done, packages = imported("run.py", *command)
    assert done.returncode == 0
    assert done.stdout
    assert not packages & set(HEAVY)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["source.no_such_key=1"], "no_such_key"),
        (["+source.no_such_key=1"], "no_such_key"),
        (["source.rows=many"], "many"),
        (["source.rows=0"], "source.rows=0"),
        (["source.s=0.5", "source.sigma=1"], "source.sigma"),
        (["selector=orcale"], "orcale"),
        (["selector=quest", "selector.page=0"], "selector.page=0"),
        (["source=smollm2", "runner=language", "runner.phase=decoding"], "runner.phase=decoding"),
        (["tracking.mode=often"], "tracking.mode=often"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_refusal_needs_no_heavy_package(command, message, tmp_path):
    done, packages = imported("run.py", f"outputs={tmp_path}", *command)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not packages & set(HEAVY)


def test_names_are_compared_only_where_one_is_misspelt(tmp_path):
    assert "difflib" not in imported("run.py", "--cfg", "job")[1]
    assert "difflib" in imported("run.py", "source.lenghts=[4]", f"outputs={tmp_path}")[1]


def test_the_list_of_runs_needs_no_heavy_package():
    done, packages = imported("-m", "experiments.status", "--outputs", str(OLD))
    assert done.returncode == 0
    assert "2 finished" in done.stdout
    assert not packages & set(HEAVY)


def test_a_lazy_package_is_imported_at_its_first_use():
    code = "import sys; from experiments.lazy import np; print(np._module); np.pi; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["None", "True"]


def test_a_lazy_package_goes_to_other_processes_by_its_name():
    package = Lazy("math")
    assert package.pi > 3
    assert pickle.loads(pickle.dumps(package)).pi == package.pi


def test_a_lazy_package_that_is_not_installed_says_so():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        _ = Lazy("no_such_package").anything


@pytest.mark.parametrize("command", ["run.py", "-m analysis", "-m experiments.status", "-m analysis.keys"])
def test_a_python_without_the_packages_is_told_of_in_one_line(command):
    """A command that was pasted where the environment is not active."""
    ran = subprocess.run([sys.executable, "-S", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "source .venv/bin/activate" in ran.stderr
