import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

import analysis
from analysis.records.load import complete_runs, fullest_design, labels_in_order, load_task
from experiments.errors import UserError
from experiments.records.folder import seal
from tests.analysis.synthetic import gaussian, law, write_run


def test_joins_the_configuration_to_both_tables(tmp_path):
    write_run(tmp_path, "r1", "Gaussian, s = 0.5", law(np.sqrt, clusters=2), s=0.5, seed=3)
    rows, windows = analysis.load(tmp_path)
    for table in (rows, windows):
        assert set(table["label"]) == {"Gaussian, s = 0.5"}
        assert set(table["kind"]) == {"gaussian"}
        assert set(table["s"]) == {0.5}
        assert table["sigma"].isna().all()
        assert set(table["seed"]) == {3}
        assert set(table["run"]) == {"r1"}
    assert {"k_min_0.1", "k_min_0.01", "position"} <= set(rows)


def test_seeds_pool_but_another_configuration_does_not(tmp_path):
    rows = law(np.sqrt, clusters=2)
    for seed in (0, 1):
        write_run(tmp_path, f"seed{seed}", "G", rows, s=0.5, seed=seed)
    write_run(tmp_path, "other", "G", rows, s=0.5, head_dim=32)
    loaded, _ = analysis.load(tmp_path)
    designs = loaded.groupby("run", observed=True)["design"].first()
    assert designs["seed0"] == designs["seed1"] != designs["other"]
    assert loaded["cluster"].nunique() == 6


def test_a_document_read_again_is_no_new_cluster(tmp_path):
    rows = law(np.sqrt, clusters=3)
    for seed in (0, 1):
        write_run(tmp_path, f"seed{seed}", "M", rows, source="smollm2", seed=seed)
    assert analysis.load(tmp_path)[0]["cluster"].nunique() == 3


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_piece_of_text_that_two_seeds_read_counts_once_unless_it_is_shuffled(tmp_path, shuffle):
    rows, windows = gaussian((64, 128), 3, 4, s=0.5)
    for seed, samples in ((0, (0, 1, 2)), (1, (1, 2, 3))):
        parts = (table[table["sample"].isin(samples)] for table in (rows, windows))
        write_run(tmp_path, f"seed{seed}", "M", *parts, source="smollm2", seed=seed, shuffle=shuffle)
    found_rows, found_windows = analysis.load(tmp_path)
    assert len(set(found_rows["design"])) == 1
    place = ["head", "length", "sample", "position"]
    window = ["head", "length", "sample", "rule", "parameter", "scale"]
    times = 1.5 if shuffle else 1
    assert len(found_rows) == len(rows) * times
    assert len(found_windows) == len(windows) * times
    assert found_rows.duplicated(place).any() == found_windows.duplicated(window).any() == shuffle
    assert (found_windows["n"] == found_windows["length"]).all()
    assert found_rows["cluster"].nunique() == 4


def extended(tmp_path, **first):
    """Write a run of four draws, and one of the first two with other windows; return its rows and windows."""
    rows, windows = gaussian((64, 128, 256), 3, 4, s=0.5)
    early, other = rows[rows["sample"] < 2], windows[windows["sample"] < 2]
    fixed = other["rule"] == "fixed"
    other = pd.concat([other[fixed], other[fixed].assign(parameter=7.0, k=7.0)])
    write_run(tmp_path, "a", "G", rows, windows, s=0.5)
    folder = write_run(tmp_path, "b", "G", early, other, s=0.5, **first)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["windows"] = {"fixed": [64, 7]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    return rows, windows


def test_runs_that_differ_only_in_windows_or_samples_are_one_evidence(tmp_path):
    rows, windows = extended(tmp_path)
    found_rows, found_windows = (fullest_design(table) for table in analysis.load(tmp_path))
    pd.testing.assert_frame_equal(found_rows[rows.columns], rows, check_dtype=False, check_categorical=False)
    assert found_rows["cluster"].nunique() == 4
    parameters = found_windows[found_windows["rule"] == "fixed"].groupby("parameter")["cluster"].nunique()
    assert parameters.to_dict() == {7.0: 2, 64.0: 4, 256.0: 4}
    assert len(found_windows) == len(windows) + 2 * 3


@pytest.mark.parametrize("other", [{"seed": 1}, {"head_dim": 32}])
def test_runs_of_another_seed_or_source_are_not_the_same_lines(tmp_path, other):
    rows, _ = extended(tmp_path, **other)
    loaded = analysis.load(tmp_path)[0]
    assert len(loaded) == len(rows) * 1.5
    assert loaded["design"].nunique() == (1 if "seed" in other else 2)
    assert loaded["cluster"].nunique() == 6


def test_windows_of_budget_files_stay_apart(tmp_path):
    """Two files name their windows alike, whatever their laws."""
    for name, file in (("a", "one.json"), ("b", "two.json")):
        rows, windows = gaussian((64, 128, 256), 3, 2, s=0.5)
        folder = write_run(tmp_path, name, "G", rows, windows.assign(rule="budget"), s=0.5)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["windows"] = {"file": file}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        seal(folder, json.loads((folder / "manifest.json").read_text()))
    assert set(analysis.load(tmp_path)[1]["rule"]) == {"budget (one)", "budget (two)"}


def test_the_fullest_design_stands_for_a_label(tmp_path):
    write_run(tmp_path, "short", "G", law(np.sqrt, lengths=(128, 256), clusters=9), s=0.5)
    write_run(tmp_path, "long", "G", law(np.sqrt, lengths=(128, 512), clusters=2), s=0.5)
    write_run(tmp_path, "more", "G", law(np.sqrt, lengths=(128, 512), clusters=3), s=0.5)
    write_run(tmp_path, "trial", "G", law(np.sqrt, lengths=(8192,), clusters=20), s=0.5)
    write_run(tmp_path, "else", "H", law(np.sqrt, lengths=(64,), clusters=2), s=0.6)
    fullest = fullest_design(analysis.load(tmp_path)[0])
    assert set(fullest["run"]) == {"long", "more", "else"}  # the first two differ only in samples
    assert fullest.groupby("label", observed=True)["cluster"].nunique().to_dict() == {"G": 3, "H": 2}


def test_labels_read_from_small_s_to_real_models(tmp_path):
    rows = law(np.sqrt, clusters=1)
    write_run(tmp_path, "a", "Model", rows, source="smollm2")
    write_run(tmp_path, "b", "sigma two", rows, sigma=2.0)
    write_run(tmp_path, "c", "s large", rows, s=0.8)
    write_run(tmp_path, "d", "s small", rows, s=0.3)
    assert labels_in_order(analysis.load(tmp_path)[0]) == ["s small", "s large", "sigma two", "Model"]


def test_unfinished_runs_are_skipped(tmp_path):
    rows = law(np.sqrt, clusters=1)
    write_run(tmp_path, "done", "G", rows, s=0.5)
    write_run(tmp_path, "failed", "G", rows, s=0.5, status="failed")
    (write_run(tmp_path, "killed", "G", rows, s=0.5) / "manifest.json").unlink()
    assert set(analysis.load(tmp_path)[0]["run"]) == {"done"}


def test_no_records_is_one_line_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"no complete records.*run\.py") as error:
        analysis.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["rows.parquet", "windows.parquet", "manifest.json", "config.yaml"])
def test_a_torn_file_is_named_with_the_remedy(tmp_path, name):
    folder = write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if name != "config.yaml" else b"source: [")
    with pytest.raises(UserError, match=rf"{name}.*delete") as error:
        analysis.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_column_missing_is_named(tmp_path):
    write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1).drop(columns="k_min_0.1"), s=0.5)
    with pytest.raises(UserError, match=r"k_min_0\.1"):
        analysis.load(tmp_path)


def test_a_missing_table_is_named(tmp_path):
    folder = write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    (folder / "rows.parquet").unlink()
    with pytest.raises(UserError, match=r"rows\.parquet"):
        analysis.load(tmp_path)


def test_runs_of_another_runner_have_other_tables(tmp_path):
    write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    folder = write_run(tmp_path, "r2", "G", law(np.sqrt, clusters=1), s=0.5)
    text = (folder / "config.yaml").read_text().replace("name: approximation", "name: language")
    (folder / "config.yaml").write_text(text)
    (folder / "rows.parquet").unlink()
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    assert set(analysis.load(tmp_path)[0]["run"]) == {"r1"}


def test_a_manifest_of_another_shape_is_no_traceback(tmp_path):
    folder = write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    (folder / "manifest.json").write_text(json.dumps(["complete"]))
    with pytest.raises(UserError, match=r"manifest\.json"):
        analysis.load(tmp_path)


def of_model(outputs, name, label, model_hash, **keys):
    folder = write_run(outputs, name, label, law(np.sqrt, clusters=1), source="checkpoint", **keys)
    manifest = json.loads((folder / "manifest.json").read_text())
    seal(folder, manifest | {"hashes": {"model": model_hash * 64, "text": "c" * 64}})
    return folder


def labels(outputs):
    rows, windows = analysis.load(outputs)
    of_rows = rows.groupby("run", observed=True)["label"].first().astype(str).to_dict()
    assert windows.groupby("run", observed=True)["label"].first().astype(str).to_dict() == of_rows
    return of_rows


def test_two_models_of_one_name_are_told_apart_by_their_folders(tmp_path):
    of_model(tmp_path, "a", "checkpoint-500", "a", model="x/runA/out/checkpoint-500")
    assert labels(tmp_path) == {"a": "checkpoint-500"}
    of_model(tmp_path, "a2", "checkpoint-500, code", "a", model="x/runA/out/checkpoint-500", text="code.txt")
    assert labels(tmp_path) == {"a": "checkpoint-500", "a2": "checkpoint-500, code"}
    of_model(tmp_path, "b", "checkpoint-500", "b", model="x/runB/out/checkpoint-500")
    of_model(tmp_path, "other", "Other", "d", model="y/Other")
    assert labels(tmp_path) == {
        "a": "runA/out/checkpoint-500",
        "a2": "runA/out/checkpoint-500, code",
        "b": "runB/out/checkpoint-500",
        "other": "Other",
    }
    of_model(tmp_path, "moved", "checkpoint-500", "b", model="z/runC/checkpoint-500")  # the same model elsewhere
    of_runs = {run.id: run.label for run in complete_runs(tmp_path)}
    assert of_runs["moved"] == of_runs["b"]
    assert "moved" not in labels(tmp_path)  # the same lines again


def test_where_the_paths_do_not_differ_the_hash_does(tmp_path):
    for name in ("a", "b"):
        of_model(tmp_path, name, "org/model", name, model="org/model")
    assert labels(tmp_path) == {"a": "org/model (aaaaaa)", "b": "org/model (bbbbbb)"}


def test_a_told_apart_name_is_never_that_of_a_third_model(tmp_path):
    for name, path in (("a", "org/m"), ("b", "b/m")):
        of_model(tmp_path, name, "m", name, model=path)
    of_model(tmp_path, "c", "org/m", "c", model="org/m")  # of a hub
    assert len(set(labels(tmp_path).values())) == 3


def test_a_record_in_a_folder_of_another_name_is_refused(tmp_path):
    write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    shutil.copytree(tmp_path / "runs" / "r1", tmp_path / "runs" / "r1-copy")
    with pytest.raises(UserError, match=r"r1-copy") as error:
        analysis.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_record_of_another_schema_is_left_out_by_name(tmp_path, capsys):
    for name in ("old", "new"):
        folder = write_run(tmp_path, name, "G", law(np.sqrt, clusters=1), s=0.5)
    folder = tmp_path / "runs" / "old"
    seal(folder, json.loads((folder / "manifest.json").read_text()) | {"schema": 0})
    assert set(analysis.load(tmp_path)[0]["run"]) == {"new"}
    (line,) = capsys.readouterr().err.splitlines()
    assert "old" in line
    shutil.rmtree(tmp_path / "runs" / "new")
    with pytest.raises(UserError, match="no complete records"):
        analysis.load(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"status":' * 10_000])
def test_a_deeply_nested_manifest_is_one_line(tmp_path, text):
    folder = write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json.*delete") as error:
        analysis.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml", "rows.parquet"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    folder = write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=rf"{name}.*not a regular file"):
        analysis.load(tmp_path)


def test_a_table_that_the_manifest_does_not_name_is_not_read(tmp_path):
    folder = write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    shutil.copy(folder / "rows.parquet", folder / "losses.parquet")
    assert load_task(complete_runs(tmp_path), "losses").empty


def test_windows_without_rows_are_refused(tmp_path):
    rows = law(np.sqrt, clusters=1, heads=2)
    windows = rows.assign(rows=1, selector="oracle", rule="fixed", parameter=1.0, scale=1.0, k=1.0, dropped_mass=0.5)
    write_run(tmp_path, "r1", "G", rows[rows["head"] == 0], windows.drop(columns="n"), s=0.5)
    with pytest.raises(UserError, match="no rows"):
        analysis.load(tmp_path)


def test_controls_of_the_rows_alone_leave_the_windows_n_alone(tmp_path):
    """The variants of both tables need not be the same."""
    rows = law(np.sqrt, clusters=1, lengths=(64, 128))
    both = pd.concat([rows.assign(variant="no_sink", n=rows["n"] - 1), rows])
    windows = rows.assign(rows=1, selector="oracle", rule="fixed", parameter=1.0, scale=1.0, k=1.0, dropped_mass=0.5)
    write_run(tmp_path, "r1", "M", both, windows.drop(columns="n"), source="smollm2")
    _, loaded = analysis.load(tmp_path)
    assert (loaded["n"] == loaded["length"]).all()
