import json

import numpy as np
import pytest

import analysis
from analysis.load import fullest_design, labels_in_order
from experiments.errors import UserError
from experiments.records.folder import seal
from tests.analysis.synthetic import law, write_run


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


def test_the_fullest_design_stands_for_a_label(tmp_path):
    write_run(tmp_path, "short", "G", law(np.sqrt, lengths=(128, 256), clusters=9), s=0.5)
    write_run(tmp_path, "long", "G", law(np.sqrt, lengths=(128, 512), clusters=2), s=0.5)
    write_run(tmp_path, "more", "G", law(np.sqrt, lengths=(128, 512), clusters=3), s=0.5)
    write_run(tmp_path, "trial", "G", law(np.sqrt, lengths=(8192,), clusters=20), s=0.5)
    write_run(tmp_path, "else", "H", law(np.sqrt, lengths=(64,), clusters=2), s=0.6)
    assert set(fullest_design(analysis.load(tmp_path)[0])["run"]) == {"more", "else"}


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
