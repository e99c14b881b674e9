"""The runner's tables: contract.md's columns, right averages, and independence of the block size."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from experiments.errors import UserError
from experiments.launch import main
from experiments.measures.compute import Compute
from experiments.measures.matrix import attention_matrix
from experiments.measures.measure import measure_rows
from experiments.measures.memory import rows_per_block
from experiments.records.table_file import read
from experiments.sources.gaussian import Gaussian
from experiments.tables.rows import ROWS
from experiments.tables.windows import WINDOWS
from tests import brute_force
from tests.models import small

ROW_COLUMNS = {
    *("layer", "head", "sample", "position", "variant", "length", "n"),
    *(
        "logit_mean",
        "logit_std",
        "logit_max",
        "logsumexp",
        "entropy",
        "log_p_variance",
        "root_sum",
        "participation",
        "p_max",
        "sink_mass",
        "learned_sink_mass",
    ),
    *("output_norm", "k_min_0.5", "k_min_0.2", "k_min_0.1", "k_min_0.05", "k_min_0.01"),
    *("count_0.1", "count_0.01", "count_0.001"),
}
WINDOW_COLUMNS = {
    *("layer", "head", "sample", "variant", "length", "rows", "selector", "rule", "parameter", "scale", "k"),
    "keys_read",
    "flops",
    *("dropped_mass", "tv", "kl", "linf_truncated", "linf_renormalised", "l2_truncated", "l2_renormalised"),
    *("output_error_truncated", "output_error_renormalised"),
    *("negative_mass", "normaliser_error", "failed"),
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line in this process and return the one record's folder."""

    def run_job(*overrides, outputs="out"):
        arguments = [*overrides, f"outputs={tmp_path / outputs}", "tracking=disabled"]
        monkeypatch.setattr("sys.argv", ["run.py", *arguments])
        assert main() == 0
        (folder,) = (tmp_path / outputs / "runs").iterdir()
        return folder

    return run_job


SMALL_MODEL = ["source.lengths=[16,40]", "source.rows=3", "source.samples=2"]
SMALL = ["source.lengths=[64,200]", "source.rows=6", "source.samples=2", "source.head_dim=8"]


def test_the_record_has_the_columns_of_the_contract(run):
    folder = run(*SMALL)
    rows, windows = read(folder / "rows.parquet", ROWS), read(folder / "windows.parquet", WINDOWS)
    assert set(rows.columns) == ROW_COLUMNS
    assert set(windows.columns) == WINDOW_COLUMNS
    assert len(rows) == 2 * 2 * 6
    keys = ["layer", "head", "sample", "variant", "length", "selector", "rule", "parameter", "scale"]
    assert not windows.duplicated(keys).any()
    assert set(windows["rows"]) == {6}
    assert not rows.isna().any().any()
    assert not windows.isna().any().any()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["run_id"] == folder.name
    assert {"seconds", "peak_rss_mb", "seed", "versions", "git_revision", "hashes"} <= set(manifest)


def test_windows_are_recorded_of_the_variants_asked_for_and_rows_of_all(run, tmp_path):
    folder, text = small.save("llama", tmp_path / "model"), tmp_path / "words.txt"
    text.write_text(small.text())
    settings = ["source=checkpoint", f"source.model={folder}", f"source.text={text}", "source.variants=[plain,no_sink]"]
    record = run(*settings, *SMALL_MODEL, "runner.window_variants=[plain]")
    rows, windows = read(record / "rows.parquet", ROWS), read(record / "windows.parquet", WINDOWS)
    assert set(windows["variant"]) == {"plain"}
    counts = rows["variant"].value_counts()
    assert counts["plain"] == counts["no_sink"] == 3 * 4 * 2 * 2 * 3
    hidden = rows[rows["variant"] == "no_sink"].reset_index(drop=True)
    assert (hidden["sink_mass"] == 0).all()
    assert (hidden["n"] == rows.loc[rows["variant"] == "plain", "n"].reset_index(drop=True) - 1).all()
    everything = run(*settings, *SMALL_MODEL, outputs="all")
    assert set(read(everything / "windows.parquet", WINDOWS)["variant"]) == {"plain", "no_sink"}


def test_a_run_that_would_record_no_window_is_refused(job):
    asked = job(*SMALL, "runner.window_variants=[no_sink]")
    with pytest.raises(UserError, match="names none of the measured variants: choose among plain"):
        asked.runner._check_variants(asked.source)


@pytest.mark.parametrize("selector", ["oracle", "sinks"])
def test_window_lines_are_averages_of_brute_force_rows(run, selector):
    overrides = [*SMALL, f"selector={selector}", "source.s=0.8"]
    windows = read(run(*overrides) / "windows.parquet", WINDOWS)
    source = Gaussian(lengths=[64, 200], rows=6, samples=2, head_dim=8, s=0.8)
    for (sample, length), lines in windows.groupby(["sample", "length"]):
        rows = source.draw(length, sample, 0, torch.device("cpu"))
        logits_RN = rows.logits().double().numpy()
        for line in lines[lines["rule"].isin(["fixed", "power"])].itertuples():
            k = min(line.parameter if line.rule == "fixed" else np.ceil(length**line.parameter), length)
            assert line.k == k
            found = []
            for logits in logits_RN:
                recent = [length - 1, 0, 1, 2, 3, *range(length - 2, 3, -1)]
                order = brute_force.ranked(logits) if selector == "oracle" else recent
                found.append(brute_force.sparse_row(logits, rows.value_NV.double().numpy(), order[: int(k)]))
            means = pd.DataFrame(found).mean()
            for name in ("dropped_mass", "tv", "kl", "linf_truncated", "linf_renormalised", "l2_truncated"):
                assert getattr(line, name) == pytest.approx(means[name], rel=1e-4, abs=1e-9), (name, line)
            for name in ("truncated", "renormalised"):
                expected = np.sqrt(means[f"output_{name}"] / means["output"])
                assert getattr(line, f"output_error_{name}") == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_the_oracle_drops_least(run):
    oracle = read(run(*SMALL) / "windows.parquet", WINDOWS)
    sinks = read(run(*SMALL, "selector=sinks", outputs="sinks") / "windows.parquet", WINDOWS)
    assert (oracle["k"] == sinks["k"]).all()
    assert (oracle["dropped_mass"] <= sinks["dropped_mass"] + 1e-12).all()


def test_block_size_and_memory_setting_change_nothing(job):
    rows = Gaussian(lengths=[300], rows=9, samples=1).draw(300, 0, 0, torch.device("cpu"))
    sizes, selectors = job().windows.at(300).sizes(rows.n_R, rows.position_R), [job().selector]
    methods = [selector.prepare(rows.cache()) for selector in selectors]
    statistics, (measures,) = measure_rows(rows, methods, sizes, 9, Compute())
    for block in (1, 4):
        of_blocks, (found_in_blocks,) = measure_rows(rows, methods, sizes, block, Compute())
        for expected, found in ((statistics, of_blocks), (measures, found_in_blocks)):
            for name in expected:
                torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-7)


def test_too_little_memory_is_refused_with_the_numbers():
    assert rows_per_block(64, 1000, 60, 64, 10**9, 0) == 64
    assert rows_per_block(64, 10**6, 60, 64, 10**9, 0) < 10
    with pytest.raises(UserError, match=r"1000000 keys.*give memory_gb="):
        rows_per_block(64, 10**6, 60, 64, 10**8, 0)


def test_matrices_are_recorded_full_or_pooled(run):
    asked = ["runner.matrix_layers=[0]", "runner.matrix_heads=[0]", "source.lengths=[200]"]
    folder = run("source.rows=6", "source.samples=1", "runner.matrix_size=64", *asked)
    with safe_open(folder / "attention.safetensors", "pt") as file:
        (name,) = file.keys()
        matrix, facts = file.get_tensor(name), json.loads(file.metadata()["matrices"])[name]
    assert matrix.dtype == torch.float16
    assert matrix.shape == (6, 50)
    assert facts == {
        "layer": 0,
        "head": 0,
        "sample": 0,
        "length": 200,
        "query_pool": 1,
        "key_pool": 4,
        "kind": "pooled",
    }
    torch.testing.assert_close(matrix.float().sum(1), torch.ones(6), rtol=5e-3, atol=0)


def test_a_pooled_cell_is_the_mean_over_queries_of_the_mass_of_its_keys():
    rows = Gaussian(lengths=[30], rows=11, samples=1).draw(30, 0, 0, torch.device("cpu"))
    full_RN = torch.softmax(rows.logits(), -1)
    pooled, query_pool, key_pool = attention_matrix(rows, 5, block=2)
    assert (query_pool, key_pool) == (3, 6)
    for i in range(4):
        for j in range(5):
            expected = full_RN[3 * i : 3 * i + 3, 6 * j : 6 * j + 6].sum(1).mean().item()
            assert pooled[i, j].item() == pytest.approx(expected, rel=1e-3)
    unpooled, *pools = attention_matrix(rows, 30, block=4)
    assert pools == [1, 1]
    torch.testing.assert_close(unpooled.float(), full_RN, rtol=1e-3, atol=1e-6)
