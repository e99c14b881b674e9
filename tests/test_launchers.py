"""Every launcher runs a real sweep: the records are those of the plain one, and a killed job is reported."""

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from experiments import launch
from experiments.command.progress import OUTCOME
from experiments.durable import read_json
from experiments.launch import main
from experiments.records.folder import inspect
from tests import slurm

ROOT = Path(__file__).resolve().parents[1]
SWEEP = ["-m", "seed=range(0,4)", "source.lengths=[64,128]", "source.rows=4", "source.samples=1", "threads=1"]
LONG = ["-m", "seed=range(0,4)", "source.lengths=[16384]", "source.rows=64", "source.samples=8", "threads=1"]
SMALL_SLURM = ["hydra.launcher.partition=main", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"]
PLUGINS = {
    "local": "hydra",
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def installed(name):
    try:
        return find_spec(PLUGINS[name]) is not None
    except ModuleNotFoundError:
        return False


def needs(name, *marks):
    extra = launch.EXTRAS.get(name.split("_")[0], "")
    skip = pytest.mark.skipif(not installed(name), reason=f"{name} not installed: pip install '.[{extra}]'")
    return pytest.param(name, marks=[skip, *marks])


def sweep(launcher, outputs, *arguments, env=None):
    command = [sys.executable, "run.py", *arguments, f"hydra/launcher={launcher}", f"outputs={outputs}"]
    return subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def tables(outputs):
    """Return the bytes of every record's tables by run id; all must be whole."""
    folders = sorted((outputs / "runs").iterdir())
    assert all(inspect(folder)[0] for folder in folders)
    names = ("rows.parquet", "windows.parquet")
    return {folder.name: [(folder / name).read_bytes() for name in names] for folder in folders}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return the records of the sweep run one job after the other."""
    outputs = tmp_path_factory.mktemp("plain")
    process = sweep("local", outputs, *SWEEP, "tracking=disabled")
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    return tables(outputs)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return the environment of a one-node Slurm."""
    if reason := slurm.cannot_run():
        pytest.skip(f"no Slurm here ({reason})")
    with slurm.one_node(tmp_path_factory.mktemp("slurm") / "one") as env:
        yield env


@pytest.mark.parametrize(
    "launcher",
    [
        needs(name, *(() if name == "joblib" else (pytest.mark.long,)))
        for name in PLUGINS
        if name not in ("local", "submitit_slurm")
    ],
)
def test_a_sweep_of_every_launcher_leaves_the_same_records(launcher, plain, tmp_path):
    process = sweep(launcher, tmp_path, *SWEEP)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "4 jobs measured" in output
    assert "Traceback" not in errors
    assert tables(tmp_path) == plain
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 4


@pytest.mark.long
@pytest.mark.parametrize("launcher", [needs("submitit_slurm")])
def test_a_sweep_on_slurm_leaves_the_same_records(launcher, cluster, plain, tmp_path):
    process = sweep(launcher, tmp_path, *SWEEP, *SMALL_SLURM, env=cluster)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "4 jobs measured" in output
    assert tables(tmp_path) == plain


def kill_one(process, outputs):
    """Kill the first job that has begun; return its command."""
    while True:
        assert process.poll() is None, process.communicate()
        for path in sorted(outputs.glob(f"jobs/*/*/*/{OUTCOME}")):
            outcome = read_json(path)
            if outcome.get("status") == "started":
                os.kill(outcome["pid"], signal.SIGKILL)
                return outcome["command"]
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue


@pytest.mark.long
@pytest.mark.parametrize("launcher", [needs(name) for name in ("joblib", "submitit_local", "submitit_slurm", "ray")])
def test_a_killed_job_is_named_and_the_same_command_completes_the_sweep(launcher, request, tmp_path):
    env = request.getfixturevalue("cluster") if launcher == "submitit_slurm" else None
    arguments = [*LONG, "tracking=disabled", *(SMALL_SLURM if env else [])]
    process = sweep(launcher, tmp_path, *arguments, env=env)
    killed = kill_one(process, tmp_path)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert "ended without a word" in errors, errors
    assert "still running" not in errors
    assert re.search(r"\b[1-4] of 4 jobs failed", errors), errors
    assert f"  {killed}  # {tmp_path}" in errors
    finished = {folder.name: (folder / "manifest.json").read_bytes() for folder in (tmp_path / "runs").glob("[!.]*")}
    again = sweep(launcher, tmp_path, *arguments, env=env)
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert f"{4 - len(finished)} jobs measured, {len(finished)} found measured" in output
    assert all((tmp_path / "runs" / name / "manifest.json").read_bytes() == text for name, text in finished.items())
    assert len(tables(tmp_path)) == 4


@pytest.mark.parametrize("launcher", [needs("joblib")])
def test_workers_end_with_a_driver_that_is_killed_before_they_have_work(launcher, tmp_path):
    process = sweep(launcher, tmp_path, *LONG, "tracking=disabled")
    driver, workers = psutil.Process(process.pid), []
    while len(workers) < 2 and process.poll() is None:
        workers = [child for child in driver.children() if "LokyProcess" in " ".join(child.cmdline())]
    process.kill()
    process.communicate()
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=60)[1] == []


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm", "ray"])
def test_a_launcher_that_is_not_installed_is_one_line(name, tmp_path, monkeypatch, capsys):
    plugin = PLUGINS[name]
    for module in [module for module in sys.modules if module.startswith(plugin)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, plugin, None)
    monkeypatch.setattr("sys.argv", ["run.py", *SWEEP, f"hydra/launcher={name}", f"outputs={tmp_path}"])
    assert main() == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"pip install '.[{launch.EXTRAS[name.split('_')[0]]}]'" in line
    assert not (tmp_path / "runs").exists()


def test_every_launcher_has_its_preset_and_its_line_in_the_docs():
    presets = {path.stem for path in (ROOT / "conf" / "hydra" / "launcher").glob("*.yaml")}
    assert presets == set(PLUGINS)
    documented = (ROOT / "docs" / "clusters.md").read_text()
    assert all(f"hydra/launcher={name}" in documented for name in presets)
