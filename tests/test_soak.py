"""A hundred kills at random moments: nothing finished is lost, nothing torn is read as good.

Run by `make soak`; SOAK_KILLS=20 makes it shorter. Half the sweeps run their jobs one by one, half in two workers. All
have one thread: another number of them splits a matrix product elsewhere, and its last bits differ.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from experiments.records.folder import abandoned, inspect

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("SOAK_KILLS", "100"))
JOBS = 16
SWEEP = [
    "-m",
    f"seed=range(0,{JOBS})",
    "source.lengths=[1024,8192]",
    "source.rows=16",
    "source.samples=12",
    "threads=1",
]
LAUNCHERS = {"one by one": [], "two workers": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]}
LONGEST = 12.0  # seconds into a sweep, at which most have begun to measure and few have ended
FILES = ("rows.parquet", "windows.parquet")


def launch(outputs, launcher, **options):
    command = [sys.executable, "run.py", *SWEEP, *LAUNCHERS[launcher], f"outputs={outputs}"]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, **options
    )


def records(outputs):
    """Return the content of every undamaged record by run id, and the ids of damaged ones."""
    whole, torn = {}, []
    for folder in (outputs / "runs").glob("[!.]*"):
        manifest, _ = inspect(folder)
        if manifest is None:
            torn.append(folder.name)
        else:
            whole[folder.name] = [(folder / name).read_bytes() for name in FILES]
    return whole, torn


def kill(process, target, chance):
    """Kill the driver, one of its workers, or everything at once; return what was killed."""
    below = [child for child in psutil.Process(process.pid).children(recursive=True) if child.is_running()]
    if target == "worker" and below:
        chance.choice(below).kill()
        return "a worker"
    if target == "everything":
        os.killpg(process.pid, signal.SIGKILL)
        return "everything"
    process.kill()
    return "the driver"


@pytest.mark.soak
def test_a_hundred_kills_lose_nothing(tmp_path):
    chance = random.Random(0)
    undisturbed = tmp_path / "undisturbed"
    assert launch(undisturbed, "one by one").wait() == 0
    expected, torn = records(undisturbed)
    assert len(expected) == JOBS
    assert torn == []

    killed, rounds, lost, damaged, different = Counter(), 0, 0, 0, 0
    outputs, finished = tmp_path / "disturbed", {}
    while sum(killed.values()) < KILLS:
        launcher = chance.choice(list(LAUNCHERS))
        process = launch(outputs, launcher)
        try:
            process.wait(timeout=chance.uniform(0.0, LONGEST))
        except subprocess.TimeoutExpired:
            killed[kill(process, chance.choice(["driver", "worker", "everything"]), chance)] += 1
        status = process.wait()
        process.stderr.close()
        now, torn = records(outputs)
        damaged += len(torn)
        lost += len(finished.keys() - now.keys())
        different += sum(content != expected[name] for name, content in now.items())
        finished = now
        if status == 0:  # the sweep is complete: the next kills fall on a new one
            assert now.keys() == expected.keys()
            rounds += 1
            shutil.rmtree(outputs)
            finished = {}
    process = launch(outputs, "one by one")
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    now, torn = records(outputs)
    report = (
        f"{sum(killed.values())} kills ({', '.join(f'{n} of {what}' for what, n in killed.items())}), {rounds + 1} "
        f"sweeps of {JOBS} jobs completed: {lost} finished records lost, {damaged + len(torn)} torn, {different} "
        f"different from the undisturbed sweep's; {len(abandoned(outputs / 'runs'))} leftovers after the last sweep"
    )
    print(f"\n{report}")
    assert now == expected
    assert (lost, damaged, different, torn) == (0, 0, 0, []), report
