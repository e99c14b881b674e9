"""The offline W&B run holds what the record holds, and a failing tracker loses nothing."""

import json
import struct

import pandas as pd
import pytest
from wandb.proto.wandb_internal_pb2 import Record

from experiments.launch import main
from experiments.tracking.weights_and_biases import WeightsAndBiases, curves_over_length

TINY = ["source.lengths=[32,64,128]", "source.rows=4", "source.samples=2", "windows.grid_per_octave=1"]
MATRIX = ["runner.matrix_layers=[0]", "runner.matrix_heads=[0]"]
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
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, *MATRIX, f"outputs={tmp_path}"])
    assert main() == 0
    import wandb

    wandb.teardown()  # waits until the file is flushed
    (folder,) = (tmp_path / "runs").iterdir()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    return folder, run


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
            if "k_min_0.1" in items:  # pictures and tables come with their own lines
                points[int(items["length"])] = {k: float(v) for k, v in items.items() if k[0] != "_"}
    curves = curves_over_length(pd.read_parquet(folder / "rows.parquet"), pd.read_parquet(folder / "windows.parquet"))
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


def test_a_failing_tracker_costs_no_record(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(WeightsAndBiases, "log", broken)
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, f"outputs={tmp_path}"])
    assert main() == 0
    assert len(list((tmp_path / "runs").glob("*/manifest.json"))) == 1


def test_disabled_tracking_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, f"outputs={tmp_path}", "tracking=disabled"])
    assert main() == 0
    assert not (tmp_path / "wandb").exists()
