"""Windows of several budget files of one model: none takes the place of another's, and names say whose they are."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.figures.page.families import looks
from analysis.records.load import complete_runs, load_task
from analysis.statistics.tasks import families
from experiments.records.folder import seal
from tests.analysis.synthetic import write_task


def write(outputs, name, file, laws, rules, parameter=0.05, samples=(0, 1), label="tiny"):
    """Write losses within windows of one budget file, the run's own digit the loss within them."""
    lines = []
    for sample in samples:
        place = {"sample": sample, "phase": "decode", "length": 256, "selector": "oracle", "position": 255}
        lines.append({**place, "rule": "dense", "parameter": np.nan, "scale": np.nan, "keys": 256.0, "loss": 2.0})
        for rule in rules:
            window = {"rule": rule, "parameter": parameter, "scale": 1.0, "keys": 32.0, "loss": 2.0 + int(name[-1])}
            lines.append({**place, **window})
    folder = write_task(outputs, name, "language", {"losses": pd.DataFrame(lines)}, label=label)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["windows"] = {"file": file, "factors": [1]} if file else {"fixed": [32]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = json.loads((folder / "manifest.json").read_text())
    windows = {"budget": laws * 64} if laws else {}
    same = {"fields": {"source.lengths": [256]}, "source": "Checkpoint", "runner": "Language"}
    seal(folder, manifest | {"identity": {**same, "windows": windows}})


def losses(outputs):
    table = load_task(complete_runs(outputs), "losses")
    return table.assign(family=families(table.astype({"rule": str})))


def test_one_budget_keeps_its_name_beside_other_windows(tmp_path):
    write(tmp_path, "run1", "a/smollm2.json", "1", ["budget", "head_fixed"])
    write(tmp_path, "run2", None, None, ["fixed"])
    table = losses(tmp_path)
    assert set(table["rule"]) == {"dense", "budget", "head_fixed", "fixed"}
    assert len(set(table["design"])) == 1
    assert (table["rule"] == "dense").sum() == 2  # of both runs, once for each sample


def test_a_moved_file_is_the_same_budget(tmp_path):
    write(tmp_path, "run1", "a/smollm2.json", "1", ["budget"])
    write(tmp_path, "run2", "b/other.json", "1", ["budget"], samples=(0, 1, 2))
    table = losses(tmp_path)
    assert set(table["rule"]) == {"dense", "budget"}
    assert (table["rule"] == "budget").sum() == 3


def test_two_budgets_of_one_name_are_told_apart_by_their_files(tmp_path):
    write(tmp_path, "run1", "a/small.json", "1", ["budget", "head_fixed"])
    write(tmp_path, "run2", "a/large.json", "2", ["budget", "head_fixed"])
    write(tmp_path, "run3", "a/gains.json", "3", ["budget_gains"], parameter=60.0)
    table = losses(tmp_path)
    within = table[table["rule"] != "dense"].groupby("family", observed=True)["loss"].agg(["mean", "size"])
    assert within["size"].eq(2).all()
    assert within["mean"].to_dict() == {
        "each head's C (small)": 3,
        "each head's C (large)": 4,
        "each head's k (small)": 3,
        "each head's k (large)": 4,
        "keys by gains": 5,
    }
    assert len(set(looks(within.index.tolist()).values())) == 5
    assert len(set(table["design"])) == 1


def test_files_of_one_name_are_told_apart_by_their_laws(tmp_path):
    for number, by in (("1", "uniform"), ("2", "uniform"), ("3", "gains")):
        write(tmp_path, f"run{number}", f"{number}/tiny.json", number, [f"budget_{by}"], parameter=64.0)
    table = losses(tmp_path)
    within = table[table["rule"] != "dense"].groupby("family", observed=True)["loss"].mean()
    assert within.to_dict() == {"keys alike (tiny, 111111)": 3, "keys alike (tiny, 222222)": 4, "keys by gains": 5}


@pytest.mark.parametrize("other", [{"parameter": 0.1}, {"rules": ["budget_pyramid"]}])
def test_budgets_that_are_named_otherwise_need_no_file(tmp_path, other):
    write(tmp_path, "run1", "a/small.json", "1", ["budget"])
    write(tmp_path, "run2", "a/large.json", "2", **({"rules": ["budget"]} | other))
    assert not losses(tmp_path)["rule"].astype(str).str.contains("(", regex=False).any()


def test_a_budget_has_one_name_on_all_texts_of_its_model(tmp_path):
    write(tmp_path, "run1", "a/small.json", "1", ["budget"])
    write(tmp_path, "run2", "a/large.json", "2", ["budget"])
    write(tmp_path, "run3", "a/small.json", "1", ["budget"], label="tiny, another text")
    other = losses(tmp_path).query("label == 'tiny, another text' and rule != 'dense'")
    assert set(other["rule"]) == {"budget (small)"}
