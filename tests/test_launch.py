"""The command line as a user meets it: exit status, one-line errors, nothing measured twice."""

import json
import os
import platform
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.command.launches import Launch, Launches
from experiments.command.progress import OUTCOME
from experiments.command.terminal import terminal
from experiments.durable import write_json
from experiments.launch import main
from experiments.records.folder import finished

ROOT = Path(__file__).resolve().parents[1]
TINY = ["source.lengths=[16,32]", "source.rows=2", "source.samples=1", "tracking=disabled"]

HUNDREDS = ",".join(f"{i / 300:.6f}" for i in range(1, 300))
MANY_WINDOWS = [f"windows.exponents=[{HUNDREDS}]", f"windows.scales=[{HUNDREDS}]"]  # 89,401 of them


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command line in this process; return exit status, output and error output."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["run.py", *arguments, f"outputs={tmp_path / 'out'}"])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        status = main()
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_same_command_measures_once(command, tmp_path):
    status, first, _ = command(*TINY)
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert status == 0
    assert "Record:" in first
    status, second, _ = command(*TINY)
    assert status == 0
    assert "Already measured" in second
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    status, _, _ = command(*TINY, "force=true")
    assert status == 0
    assert (folder / "manifest.json").stat().st_mtime_ns != before


def test_a_sweep_from_the_command_line(command, tmp_path):
    sweep = ["-m", "source.s=0.3,0.8", "seed=0,1", "windows.exponents=[0.3],[0.5]", "source.lengths=[16],[32]"]
    assert command(*[t for t in TINY if "lengths" not in t], *sweep)[0] == 0
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 16


def test_a_plan_measures_nothing(command, tmp_path):
    status, out, _ = command(*TINY, "plan=true", "-m", "source.s=0.3,0.8")
    assert status == 0
    assert "2 jobs" in out
    assert "about" in out
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["source.lengths=[0]"], "source.lengths has 0"),
        (["windows.exponents=[1.2]"], "C = 1.2"),
        (["windows.fixed=[-4]"], "-4"),
        (["source=nowhere"], "nowhere"),
        (["source=checkpoint", "source.model=/not/there"], "/not/there"),
        (["source=checkpoint"], "source.model"),
        (["source=smollm2", "source.lengths=[8193]"], "8192"),
        (["source=smollm2", "source.samples=1000"], "text"),
        (["device=cuda:7"], "device=cuda:7"),
        (["source.lenghts=[4]"], "lenghts"),
        (["source.rows=many"], "many"),
        (["experiment=none"], "none"),
        (
            ["selector=snapkv"],
            "error: selector=snapkv: there is no such option: did you mean selector=snap_kv? choose from ",
        ),
        (["memory_gb=0.0001"], "memory_gb"),
        (["threads=0"], "threads"),
        (["triton=true"], "error: triton=true: a kernel for cards, and device=cpu; leave it out"),
        (["threads=1000000"], "threads=1000000: this machine has"),
        (["memory_gb=nan"], "memory_gb"),
        (["device=meta"], "device=meta: not available on this machine; use device=cpu"),
        (["device=cuda:-1"], "error: device=cuda:-1: not available"),
        (["device="], "device=: not available"),
        (["source=checkpoint", "source.model="], "source.model is empty"),
        (["source=checkpoint", "source.model='~of_nobody/x'"], "source.model=~of_nobody/x: no user of that name"),
        (["source=checkpoint", "source.model='~/no_such_model'"], "source.model=~/no_such_model: no such directory"),
        (["source=checkpoint", f"source.model={'x' * 300}"], "no such directory"),
        (["source=checkpoint", f"source.model={'x' * 300}.gguf"], "no such directory or .gguf file"),
        (["source=checkpoint", "source.model=/caf\udce9"], "not UTF-8"),
        (["source=smollm2", "source.text="], "source.text is empty"),
        (["source=smollm2", "source.text='~of_nobody/x'"], "source.text=~of_nobody/x: no user of that name"),
        (["source=smollm2", f"source.text={'x' * 300}"], "File name too long; give a readable text file"),
        (["source=smollm2", "source.text=/caf\udce9"], "not UTF-8"),
        (["windows=budget", f"windows.file={'x' * 300}"], "File name too long; write it with"),
        (["source.s='~ (a"], "cannot be read; give KEY=VALUE"),
        (["source.lengths=[8000000]", "memory_gb=1"], "memory_gb=1 is too little"),
        (["windows.grid_per_octave=1000000000"], "windows.grid_per_octave=1000000000"),
        (MANY_WINDOWS, "at most 65535"),
        (["-m", "seed=range(5,0)"], "the sweep has no jobs"),
        (["seed=-1"], "seed"),
        (["selector.k=4"], "selector.k"),
        (["windows=budget"], "budget"),
        (["gibberish"], "gibberish"),
        (["+source.foo=1"], "source.foo"),
        (["+windows.rules.power.foo=1"], "windows.rules.power.foo"),
        (["runner.matrix_layers=[3]", "runner.matrix_heads=[0]"], "matrix_layers"),
        (["runner.matrix_layers=[0]"], "give both"),
        (["experiment=null"], "NoneType"),
    ],
)
def test_bad_input_is_one_line_and_a_status(command, tmp_path, arguments, word):
    status, _, err = command(*arguments)
    assert status == 1
    assert err.startswith("error: ")
    assert word in err
    assert len(err.strip().splitlines()) == 1, err
    assert not list((tmp_path / "out").glob("runs/*"))


@pytest.mark.parametrize(
    ("arguments", "meant", "choices"),
    [
        (["source.lenghts=[4]"], "source.lengths", ["lengths", "rows", "sigma"]),
        (["soure=gaussian"], "source", ["source", "selector", "hydra/launcher"]),
        (["+sede=1"], "seed", ["seed", "outputs"]),
        (["~soure"], "source", ["source", "seed"]),
        (["source=gausian"], "source=gaussian", ["gaussian", "smollm2"]),
        (["-m", "source=gausian,gaussian"], "source=gaussian", ["gaussian", "smollm2"]),
        (["-m", "source.lenghts=[4],[8]"], "source.lengths", ["lengths", "rows"]),
        (["experiment=qick"], "experiment=quick", ["quick", "heads"]),
        (["experiment=quick", "widnows=paper"], "windows", ["windows"]),
        (["windows.exponent=[0.3]"], "windows.exponents", ["exponents", "fixed", "top_p"]),
        (["windows.rules.powr.exponents=[0.3]"], "windows.rules.power", ["power", "log"]),
        (["+windows.rules.powr.exponents=[0.3]"], "windows.rules.power", ["power", "log"]),
        (["hydra/launcher=jobib"], "hydra/launcher=joblib", ["joblib", "local"]),
        (["hydra/lancher=joblib"], "hydra/launcher", ["hydra/launcher", "source"]),
        (["lengths=[4]"], "source.lengths", ["source"]),
        (["selector=several", "selector.part.quest.page=8"], "selector.parts", ["parts"]),
        (["selector=several", "selector.parts.qest.page=8"], "selector.parts.quest", ["quest", "h2o", "oracle"]),
        (["selector=several", "selector.parts.quest.pge=8"], "selector.parts.quest.page", ["page"]),
        (["selector=several", "~selector.parts.h20"], "selector.parts.h2o", ["quest", "h2o", "oracle"]),
        (["selector=several", "+selector.parts.qest=quest"], "selector.parts.quest", ["quest", "h2o"]),
        (["selector=several", "+selector@selector.parts.x=mean_valu"], "selector=mean_value", ["mean_value", "quest"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in "".join(value) else "",
)
def test_what_is_misspelt_gets_the_name_that_was_meant_and_all_that_may_stand_there(command, arguments, meant, choices):
    status, _, err = command(*arguments)
    assert status == 1
    assert len(err.strip().splitlines()) == 1, err
    assert f"did you mean {meant}? choose from " in err
    assert set(choices) <= set(err.strip().split("choose from ")[1].split(", "))


@pytest.mark.parametrize(
    ("arguments", "option"),
    [(["source.model=x"], "source=checkpoint"), (["selector.page=4"], "selector=quest")],
)
def test_a_key_of_another_option_says_of_which(command, arguments, option):
    status, _, err = command(*arguments)
    assert status == 1
    assert f"is no key of the configuration, but of {option}; choose from " in err


def test_one_bad_job_does_not_cost_the_others(command, tmp_path):
    status, _, err = command(*TINY, "-m", "source.rows=0,2")
    assert status == 1
    assert "1 of 2 jobs failed" in err
    assert "source.rows=0" in err
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1


def test_an_unexpected_error_is_one_line_with_its_traceback_on_disk(command, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("experiments.measures.measure.measure_rows", broken)
    status, _, err = command(*TINY)
    assert status == 1
    assert err.strip().splitlines()[0].startswith("error: RuntimeError: first line second line (details in ")
    log = Path(err.split("details in ")[1].split(")")[0].replace("\n", ""))
    assert "Traceback" in log.read_text()


def test_a_killed_run_is_completed_by_the_same_command(tmp_path):
    arguments = [sys.executable, "run.py", *TINY, f"outputs={tmp_path}", "source.samples=500"]
    # The partial record's folder appears once measuring has begun: that is midway, without a clock.
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("runs/.partial-*")):
        os.sched_yield()
    assert process.poll() is None, "the job ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("runs/*/manifest.json"))
    assert subprocess.run(arguments, cwd=ROOT, capture_output=True, check=False).returncode == 0
    (manifest,) = tmp_path.glob("runs/[!.]*/manifest.json")
    assert json.loads(manifest.read_text())["status"] == "complete"


def test_a_truncated_record_is_measured_again(command, tmp_path):
    command(*TINY)
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    whole = (folder / "windows.parquet").read_bytes()
    (folder / "windows.parquet").write_bytes(whole[: len(whole) // 2])
    status, out, _ = command(*TINY)
    assert status == 0
    assert "Already measured" not in out
    assert len((folder / "windows.parquet").read_bytes()) > len(whole) // 2


def test_what_a_killed_job_left_is_removed(command, tmp_path):
    command(*TINY)
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    leftover = folder.with_name(f".partial-{folder.name}-{platform.node()}-999999999-x")
    leftover.mkdir()
    command(*TINY, "force=true")
    assert not leftover.exists()


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("file", "choose another outputs="),
        ("file/below", "choose another outputs="),
        ("x" * 300, "File name too long"),
        ("/caf\udce9", "not UTF-8"),
        ("", "outputs is empty: give a path"),
        ("'  '", "outputs is empty: give a path"),
        ("'~of_nobody/x'", "outputs=~of_nobody/x: no user of that name has a home here"),
    ],
)
def test_outputs_that_cannot_be_written_are_one_line(tmp_path, monkeypatch, capsys, outputs, message, sweep):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, f"outputs={outputs}", *sweep])
    assert main() == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert all(message in line for line in said)
    assert len(said) == 1 or (sweep and len(said) == 2)
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "outputs"}  # where it is told that it was refused


def test_a_home_in_quotes_is_written_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, "outputs='~/out'"])
    assert main() == 0
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1
    assert (tmp_path / "out" / "jobs").is_dir()


@pytest.mark.parametrize(
    "arguments", [TINY, [*TINY, "-m", "seed=0,1,2"], ["--help"], ["source=gaussian", "--cfg", "job"]]
)
def test_a_reader_that_leaves_costs_nothing(tmp_path, arguments):
    """As `run.py ... | head` does."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "run.py", f"outputs={tmp_path}", *arguments]
    ended = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(list(tmp_path.glob("runs/*"))) == {len(TINY): 1, len(TINY) + 2: 3}.get(len(arguments), 0)


def test_a_plan_of_what_is_measured_costs_nothing(command):
    command(*TINY, "-m", "source.s=0.3,0.8")
    _, out, _ = command(*TINY, "-m", "source.s=0.3,0.8", "plan=true")
    assert "2 jobs: about 0 s" in out


def test_running_out_of_memory_names_the_remedy(command, monkeypatch):
    def too_much(*args, **kwargs):
        raise MemoryError("Unable to allocate 12 GiB")

    monkeypatch.setattr("experiments.measures.measure.measure_rows", too_much)
    status, _, err = command(*TINY)
    assert status == 1
    assert "out of memory, lower memory_gb" in err


def test_a_job_that_ended_without_a_word_is_a_failure(tmp_path, capsys):
    launches = Launches()
    launches.add(Launch(tmp_path, f"*/{OUTCOME}", lambda: 4))
    dead = {"status": "started", "command": "python run.py seed=1", "pid": 999999999, "node": platform.node()}
    for name in "01":
        (tmp_path / name).mkdir()
    write_json(tmp_path / "0" / OUTCOME, dead)
    write_json(tmp_path / "1" / OUTCOME, {"status": "measured", "command": "python run.py seed=2", "run_id": "a"})
    assert launches.report(terminal(stderr=True), stopped=False, raised=False)
    err = capsys.readouterr().err
    assert "killed, or out of memory" in err
    assert "1 of 4 jobs failed" in err
    assert "2 never began" in err
    assert "python run.py seed=1" in err
    assert str(tmp_path / "0") in err


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: tried"),
        np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(float)),  # type: ignore[attr-defined]
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA out of memory. Tried to allocate"),
    ],
)
def test_every_allocator_that_fails_gets_the_remedy(command, monkeypatch, error):
    def too_much(*args, **kwargs):
        raise error

    monkeypatch.setattr("experiments.measures.measure.measure_rows", too_much)
    status, _, err = command(*TINY)
    assert status == 1
    assert err.startswith("error: out of memory, lower memory_gb or source.lengths: ")


def test_memory_is_refused_before_it_is_taken(command, monkeypatch):
    monkeypatch.setattr("experiments.sources.gaussian.Gaussian.draw", lambda *_: pytest.fail("it was drawn"))
    assert command("source.lengths=[16,8000000]", "memory_gb=1")[0] == 1


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
def test_outcomes_of_an_earlier_launch_into_the_same_folder_do_not_count(command, tmp_path, sweep):
    kind = "sweep" if sweep else "run"
    folder = f"hydra.{kind}.dir={tmp_path / 'same'}"
    assert command(*TINY, folder, "source.rows=0", *["seed=0,1,2,3" if x == "seed=0,1" else x for x in sweep])[0] == 1
    (tmp_path / "same" / "7").mkdir()
    write_json(tmp_path / "same" / "7" / OUTCOME, {"status": "started", "command": "python run.py"})
    status, _, err = command(*TINY, folder, *sweep)
    assert (status, err) == (0, "")


def test_a_job_that_is_in_a_sweep_twice_is_measured_once(command, tmp_path):
    status, out, err = command(*TINY, "-m", "seed=0,0,1,0")
    assert (status, err) == (0, "")
    assert "2 jobs measured, 2 found measured" in out
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2


def test_a_path_with_brackets_is_printed_as_it_is(tmp_path, monkeypatch, capsys):
    outputs = tmp_path / "x[" / "y]:smile:"
    for word in ("Record: ", "Already measured: "):
        monkeypatch.setattr("sys.argv", ["run.py", *TINY, f"outputs='{outputs}'"])
        assert main() == 0, capsys.readouterr().err
        assert any(line.startswith(word) and str(outputs) in line for line in capsys.readouterr().out.splitlines())


def test_a_record_that_is_kept_is_no_failure_whatever_ends_its_job(tmp_path, monkeypatch, capsys):
    """A worker may be killed while the trackers are told of a record that is in place."""

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    monkeypatch.setattr("experiments.job._track", killed)
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, f"outputs={tmp_path}"])
    with pytest.raises(Killed):
        main()
    (path,) = (tmp_path / "jobs").rglob(OUTCOME)
    (record,) = (tmp_path / "runs").iterdir()
    assert json.loads(path.read_text())["status"] == "measured"
    assert json.loads(path.read_text())["run_id"] == record.name
    assert capsys.readouterr().err == ""


def test_a_sweep_ends_with_what_is_worth_knowing(command):
    _, out, _ = command(*TINY, "-m", "source.s=0.3,0.8")
    assert "The sweep" in out
    assert "grow like" in out
    assert "2 jobs measured" in out
    _, out, _ = command(*TINY, "-m", "source.s=0.3,0.8")
    assert "0 jobs measured, 2 found measured" in out


def begun(arguments, outputs, **options):
    """Start a run in a process of its own and return once it has begun to measure."""
    process = subprocess.Popen(
        [sys.executable, "run.py", *arguments, f"outputs={outputs}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    while process.poll() is None and not list(outputs.glob("runs/.partial-*")):
        os.sched_yield()
    return process


def test_ctrl_c_says_that_the_same_command_continues(tmp_path):
    process = begun([*TINY, "source.samples=5000"], tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == "stopped; what is finished is kept, the same command continues\n"
    assert not list(tmp_path.glob("runs/*"))
    (outcome,) = tmp_path.glob("jobs/*/*/outcome.json")
    assert json.loads(outcome.read_text())["error"] == "stopped by Ctrl-C"


@pytest.mark.parametrize("program", [["run.py"], ["-m", "experiments.status"]])
@pytest.mark.parametrize("module", ["rich.table", "experiments.records.folder"])
def test_ctrl_c_while_the_command_still_loads_is_one_line(program, module, tmp_path):
    """The signal falls into an import, where an exception would surface as another, over many lines."""
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    ended = subprocess.run(
        [sys.executable, *program], cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr == "stopped; what is finished is kept, the same command continues\n"


def test_two_sweeps_at_once_share_their_jobs(tmp_path):
    sweep = [*TINY, "-m", "seed=range(0,4)"]
    both = [begun(sweep, tmp_path) for _ in range(2)]
    results = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 4
    assert all(map(finished, folders))


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    arguments = [*TINY, "source.rows=64", "source.samples=40"]
    process = begun(arguments, tmp_path, preexec_fn=limit_file_size)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith("error: ")
    assert "free space" in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("runs/*"))
    assert subprocess.run(
        [sys.executable, "run.py", *arguments, f"outputs={tmp_path}"], cwd=ROOT, capture_output=True, check=True
    )


def test_a_text_that_changes_while_it_is_measured_is_not_recorded(command, tmp_path, monkeypatch):
    seen = iter("aab")  # asked for by the run id, for the manifest, and when all is measured
    monkeypatch.setattr("experiments.sources.gaussian.Gaussian.identity", lambda source: {"text": next(seen)})
    status, _, err = command(*TINY)
    assert status == 1
    assert "a file that decides its numbers changed meanwhile" in err
    assert not list((tmp_path / "out" / "runs").iterdir())


def test_help_reads_like_a_manual(tmp_path):
    out = subprocess.run([sys.executable, "run.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for part in ("USAGE", "EXAMPLES", "KEYS", "GROUPS", "source.lengths", "experiment=quick", "hydra/launcher"):
        assert part in out.stdout
    assert "== Config ==" not in out.stdout
    listed = out.stdout.split("GROUPS")[1].split("More:")[0]
    for group in ("experiment", "source", "windows", "selector", "runner", "tracking", "hydra/launcher"):
        names = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        of_group = re.search(rf"^ *{group} +((?:[\w ]|\n {{10,}})*)", listed, re.MULTILINE)
        assert of_group
        assert set(of_group[1].split()) == names
    assert max(map(len, listed.splitlines())) <= 120
