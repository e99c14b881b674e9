"""The offline W&B run holds what the record holds, and a failing tracker loses nothing."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb
import yaml
from wandb.proto.wandb_internal_pb2 import Record

from experiments.curves import ROW_COLUMNS, WINDOW_COLUMNS, curves_over_length, exponents, quality_over_length
from experiments.launch import main
from experiments.records.table_file import read
from experiments.tables.rows import ETAS, ROWS
from experiments.tables.windows import WINDOWS
from experiments.tracking.weights_and_biases import WeightsAndBiases, _power_curves

TINY = ["source.lengths=[32,64,128]", "source.rows=4", "source.samples=2", "windows.grid_per_octave=1"]
MATRIX = ["runner.matrix_layers=[0]", "runner.matrix_heads=[0]"]
ROOT = Path(__file__).resolve().parents[2]
BLOCK, HEADER = 32768, 7  # LevelDB log framing, which wandb uses for its offline files


def read_back(path):
    """Yield the records of a .wandb file."""
    data, offset, parts = path.read_bytes(), HEADER, b""
    while offset + HEADER <= len(data):
        if BLOCK - offset % BLOCK < HEADER:
            offset += BLOCK - offset % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + HEADER])
        parts += data[offset + HEADER : offset + HEADER + length]
        offset += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Run one tracked job; return its record's folder and the offline run's folder."""
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "wandb"))
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, *MATRIX, "tracking.artifacts=true", f"outputs={tmp_path}"])
    assert main() == 0
    wandb.teardown()  # waits until the file is flushed
    (folder,) = (tmp_path / "runs").iterdir()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    return folder, run


def summary(records):
    """Return the last value of every summary entry."""
    found = {}
    for record in records:
        if record.HasField("summary"):
            found |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
    return found


def table(run, name):
    """Return a logged table as a frame."""
    (path,) = (run / "files" / "media" / "table").glob(f"{name}_*.table.json")
    content = json.loads(path.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def test_summary_tables_metrics_and_artifact_are_those_of_the_record(tracked):
    folder, run = tracked
    records = list(read_back(next(run.glob("*.wandb"))))
    manifest = json.loads((folder / "manifest.json").read_text())
    curves = curves_over_length(read(folder / "rows.parquet", ROWS), read(folder / "windows.parquet", WINDOWS))
    said = summary(records)
    assert {name: said[name] for name in ("run_id", "label", "seconds")} == {
        name: manifest[name] for name in ("run_id", "label", "seconds")
    }
    assert said["length"] == 128
    for name, value in curves.loc[128].dropna().items():
        assert said[name] == pytest.approx(value, rel=1e-12)
    needed = exponents(read(folder / "rows.parquet", ROWS))
    pd.testing.assert_frame_equal(table(run, "exponents"), needed)
    for mean in ("mean_window", "typical_head"):
        assert said[f"exponent/{mean}/0.1"] == pytest.approx(needed.set_index("dropped_mass")[mean][0.1])
    pd.testing.assert_frame_equal(table(run, "curves"), curves.reset_index(), check_dtype=False)
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert any(metric.glob_name == "*" and metric.step_metric == "length" for metric in metrics)
    artifacts = {record.artifact.type: record.artifact for record in records if record.HasField("artifact")}
    assert artifacts["record"].name == f"record-{manifest['run_id']}"
    assert {entry.path for entry in artifacts["record"].manifest.contents} == {path.name for path in folder.iterdir()}


def test_a_slope_of_a_known_power_comes_back():
    """Of keys that the head sees: a sliding head beside it, whose n stands still, has none and changes nothing."""
    length = np.array([64, 256, 1024])
    growing = pd.DataFrame({"layer": 0, "n": length, "length": length, "k_min_0.1": 3 * length**0.6})
    sliding = pd.DataFrame({"layer": 1, "n": 32, "length": length, "k_min_0.1": [9.0, 10.0, 12.0]})
    rows = pd.concat([growing, sliding]).assign(head=0, variant="plain")
    needed = exponents(rows)
    assert needed["mean_window"].tolist() == needed["typical_head"].tolist() == pytest.approx([0.6])
    assert exponents(rows[rows["layer"] == 1])["mean_window"].isna().all()


def test_losses_become_curves_whose_points_are_their_means():
    lines = [
        {"sample": 0, "rule": rule, "parameter": parameter, "scale": scale, "position": t, "loss": base + t}
        for rule, parameter, scale, base in (("dense", float("nan"), float("nan"), 1.0), ("power", 0.5, 4.0, 2.0))
        for t in range(64)
    ]
    curves = quality_over_length(pd.DataFrame(lines).assign(agreement=lambda table: table["position"] % 2, kl=0.5))
    assert curves.index.tolist() == [4 * (i + 1) for i in range(16)]
    assert curves["loss/dense"].tolist() == pytest.approx([1 + 1.5 + 4 * i for i in range(16)])
    assert (curves["loss/power_0.5_x4"] - curves["loss/dense"]).tolist() == pytest.approx([1.0] * 16)
    assert curves[["agreement/dense", "kl/power_0.5_x4"]].drop_duplicates().to_numpy().tolist() == [[0.5, 0.5]]


def test_the_offline_run_holds_curves_config_group_and_images(tracked):
    folder, run = tracked
    records = list(read_back(next(run.glob("*.wandb"))))
    (info,) = [record.run for record in records if record.HasField("run")][:1]
    config = {update.key: json.loads(update.value_json) for update in info.config.update}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert info.run_group == "gaussian"
    assert info.job_type == "approximation"
    assert config["manifest"]["run_id"] == manifest["run_id"]
    assert config["source"]["lengths"] == [32, 64, 128]

    points = {}
    for record in records:
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if "mean_window/0.1" in items:  # pictures and tables come with their own lines
                points[int(items["length"])] = {k: float(v) for k, v in items.items() if k[0] != "_"}
    curves = curves_over_length(read(folder / "rows.parquet", ROWS), read(folder / "windows.parquet", WINDOWS))
    assert list(points) == [32, 64, 128]
    for length, values in curves.iterrows():
        for name, value in values.dropna().items():
            assert points[length][name] == pytest.approx(value, rel=1e-12)
    exits = [record.exit.exit_code for record in records if record.HasField("exit")]
    assert exits == [0]
    names = [path.name for path in (run / "files" / "media").rglob("*") if path.is_file()]
    assert any(name.startswith("error_against_length") and name.endswith(".table.json") for name in names)
    assert any("layer00.head00" in name for name in names)
    assert any(name.endswith(".table.json") for name in names)


def test_wandb_sync_finds_the_run_and_asks_for_the_login_alone(tracked, tmp_path):
    _, run = tracked
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "wandb", "sync", str(run)], env=env, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "wandb login" in said or "API key" in said or "not logged in" in said.lower()


def test_a_failing_tracker_costs_no_record(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(WeightsAndBiases, "log", broken)
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, f"outputs={tmp_path}"])
    assert main() == 0
    assert len(list((tmp_path / "runs").glob("*/manifest.json"))) == 1


def test_a_disk_that_is_full_by_then_is_one_line_and_keeps_the_record(tmp_path, monkeypatch, capfd, caplog):
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "wandb"))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wandb, "Table", full)
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, f"outputs={tmp_path}"])
    assert main() == 0
    wandb.teardown()
    assert capfd.readouterr().err == ""
    told = [record.getMessage() for record in caplog.records if record.name == "experiments.job"]
    assert told == ["tracking failed, the record is kept: [Errno 28] No space left on device"]
    assert len(list((tmp_path / "runs").glob("*/manifest.json"))) == 1


def test_disabled_tracking_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, f"outputs={tmp_path}", "tracking=disabled"])
    assert main() == 0
    assert not (tmp_path / "wandb").exists()


def test_curves_of_several_selectors_are_told_apart():
    place = {"length": [64, 64], "layer": 0, "head": 0, "sample": 0, "variant": "plain"}
    rows = pd.DataFrame(place | {"k_min_0.1": [4.0, 6.0]})
    window = {"rule": "power", "parameter": 0.5, "scale": 1.0, "output_error_renormalised": 0.0}
    windows = pd.DataFrame(place | window | {"selector": ["oracle", "random"], "dropped_mass": [0.1, 0.9]})
    curves = curves_over_length(rows, windows)
    assert curves["dropped_mass/oracle/power_0.5"].item() == 0.1
    assert curves["dropped_mass/random/power_0.5"].item() == 0.9
    assert _power_curves(curves) == {"oracle, C = 0.5": [0.1], "random, C = 0.5": [0.9]}
    alone = curves_over_length(rows, windows[windows["selector"] == "oracle"])
    assert _power_curves(alone) == {"C = 0.5": [0.1]}


def test_a_record_is_logged_once_whatever_is_run_again(tmp_path, monkeypatch, capsys):
    """W&B's id is the record's: measured again, it takes its own place; lost to a kill, the next run logs it."""
    argv = ["run.py", *TINY, f"outputs={tmp_path}"]
    monkeypatch.setattr("sys.argv", argv)
    assert main() == 0
    (record,) = (tmp_path / "runs").iterdir()

    def logged():
        wandb.teardown()
        return [path.name.rsplit("-", 1)[1] for path in (tmp_path / "wandb").glob("offline-run-*")]

    assert logged() == [record.name]
    assert main() == 0  # found: nothing to log
    assert logged() == [record.name]
    monkeypatch.setattr("sys.argv", [*argv, "force=true"])
    assert main() == 0
    assert logged() == [record.name]
    (tmp_path / "wandb" / "logged" / record.name).unlink()  # a kill between record and the end of its log
    monkeypatch.setattr("sys.argv", argv)
    assert main() == 0
    assert logged() == [record.name]
    assert (tmp_path / "wandb" / "logged" / record.name).exists()
    assert "Already measured" in capsys.readouterr().out


def test_an_agent_of_a_sweep_has_ids_of_its_own_and_measured_points_log_again(tmp_path, monkeypatch):
    argv = ["run.py", *TINY, f"outputs={tmp_path}"]
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun1")
    assert main() == 0
    wandb.teardown()  # a process of its own reads its own environment
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun2")
    assert main() == 0
    wandb.teardown()
    ids = {path.name.rsplit("-", 1)[1] for path in (tmp_path / "wandb").glob("offline-run-*")}
    assert ids == {"agentrun1", "agentrun2"}


def test_the_command_line_that_an_agent_makes_of_the_example_is_understood(tmp_path, monkeypatch):
    sweep = yaml.safe_load((ROOT / "examples" / "wandb_sweep.yaml").read_text())
    assert sweep["command"][-1] == "${args_no_hyphens}"  # KEY=VALUE, as Hydra takes it
    values = {key: entry.get("value", entry.get("values", [None])[-1]) for key, entry in sweep["parameters"].items()}
    arguments = [f"{key}={value}" for key, value in (values | {"tracking": "disabled"}).items()]
    monkeypatch.setattr("sys.argv", ["run.py", *arguments, *TINY, f"outputs={tmp_path}"])
    assert main() == 0
    (record,) = (tmp_path / "runs").iterdir()
    assert yaml.safe_load((record / "config.yaml").read_text())["source"]["s"] == 1.1
    curves = exponents(read(record / "rows.parquet", ROWS))
    name, eta = sweep["metric"]["name"].split("/")
    assert name in curves
    assert float(eta) in curves["dropped_mass"].tolist()


def test_a_run_is_named_by_its_source_seed_and_windows(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, "seed=3", "windows.exponents=[0.3]", f"outputs={tmp_path}"])
    assert main() == 0
    wandb.teardown()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    info = next(record.run for record in read_back(next(run.glob("*.wandb"))) if record.HasField("run"))
    assert info.display_name.startswith("Gaussian, s = 0.5, windows.grid_per_octave=1 seed=3 windows.exponents=[0.3] ")
    assert info.run_id == next((tmp_path / "runs").iterdir()).name


def runs_of(outputs):
    """Return what each offline run says of itself."""
    wandb.teardown()
    paths = [next(run.glob("*.wandb")) for run in (outputs / "wandb").glob("offline-run-*")]
    return [next(record.run for record in read_back(path) if record.HasField("run")) for path in paths]


def test_the_runs_of_a_sweep_are_one_group_which_the_repeated_command_keeps(tmp_path, monkeypatch):
    sweep = ["seed=0,1", "source.s=0.3,0.5"]
    monkeypatch.setattr("sys.argv", ["run.py", "-m", *TINY, *sweep, f"outputs={tmp_path}"])
    assert main() == 0
    first = runs_of(tmp_path)
    assert len(first) == 4
    (group,) = {run.run_group for run in first}
    assert set(sweep) <= set(group.split())
    assert str(tmp_path) not in group
    lost = first[0].run_id  # to a kill
    (tmp_path / "wandb" / "logged" / lost).unlink()
    shutil.rmtree(next((tmp_path / "wandb").glob(f"offline-run-*-{lost}")))
    shutil.rmtree(tmp_path / "runs" / lost)
    again = ["run.py", *sweep[::-1], *TINY, "-m", f"outputs={tmp_path}", "threads=1"]
    monkeypatch.setattr("sys.argv", again)
    assert main() == 0
    assert {run.run_id: run.run_group for run in runs_of(tmp_path)} == {run.run_id: group for run in first}


def test_layers_have_a_curve_each(tmp_path):
    lines = [
        (layer, head, "plain", length, length, *[float(10 * layer + head + length)] * len(ETAS))
        for layer in (0, 3, 11)
        for head in (0, 1)
        for length in (64, 128)
    ]
    rows = pd.DataFrame(lines, columns=ROW_COLUMNS)
    windows = pd.DataFrame([("plain", 128, "oracle", "power", 0.5, 1.0, 0.1, 0.2)], columns=WINDOW_COLUMNS)
    curves = curves_over_length(rows, windows)
    for layer in (0, 3, 11):  # by hand: the mean of heads 0 and 1
        curve = curves[f"mean_window_of_layer/0.1/{layer:02d}"]
        assert curve.to_dict() == {64: 10 * layer + 64.5, 128: 10 * layer + 128.5}
    alone = curves_over_length(rows[rows["layer"] == 3], windows)
    assert not [name for name in alone if name.startswith("mean_window_of_layer")]
