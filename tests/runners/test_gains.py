"""Marginal gains: one layer or KV head alone keeps few keys, and all of them alone is dense."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.records.folder import Record
from experiments.tables.gains import EVERY_KV_HEAD, GAINS
from tests.models import small

WINDOWS = ["windows/rules=[linear]", "windows.fractions=[0.1,0.5,1]"]
SIZES = ["source.lengths=[48,64]", "source.samples=2", "runner.decode_tokens=6"]
MACHINE = type("Machine", (), {"device": torch.device("cpu"), "memory_bytes": 10**9})


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small.save("llama", folder / "one")
    text = folder / "text.txt"
    text.write_text(small.text())
    return ["source=checkpoint", f"source.model={folder / 'one'}", f"source.text={text}", *SIZES, *WINDOWS]


def measured(folder, *words):
    job = configure(*words)
    job.runner.check(job.source, job.selector, job.windows)
    folder.mkdir()
    record, steps = Record(folder, job.runner.tables), []
    job.runner.run(job.source, job.selector, job.windows, MACHINE, job.seed, record, lambda: steps.append(1))
    record.close("", dict)
    assert len(steps) == job.runner.groups(job.source, job.selector, job.windows)
    return job, pd.read_parquet(folder / GAINS.file)


def test_a_layer_alone_is_what_the_language_runner_has_of_that_layer(asked, tmp_path):
    job, lines = measured(tmp_path / "gains", *asked, "runner=gains", "selector=frozen")
    layers = job.source.layers_and_heads()[0]
    assert set(lines["kv_head"]) == {EVERY_KV_HEAD}
    assert len(lines) == 2 * 2 * 2 * 3 * len(layers)  # samples, lengths, methods, windows
    whole = lines[lines["parameter"] == 1]
    np.testing.assert_allclose(whole["loss"], whole["dense_loss"], atol=1e-4)
    assert whole["kl"].max() <= 1e-6
    assert lines[lines["parameter"] == 0.1]["kl"].mean() > 1e-4
    for _, line in lines.iterrows():
        seen = line["length"] - 2.5  # keys of the last six rows on average
        assert line["n"] == seen
        assert line["keys"] == pytest.approx(line["parameter"] * seen, abs=1)
    one = [*asked, "runner=language", "runner.phase=decode", "selector=snap_kv_prompt", "runner.layers=[1]"]
    losses = pd.read_parquet(_losses(tmp_path / "one", one))
    expected = losses[losses["rule"] != "dense"].groupby(["sample", "length", "parameter"])[["loss", "kl", "agreement"]]
    mine = lines[(lines["selector"] == "snap_kv_prompt") & (lines["layer"] == 1)]
    mine = mine.set_index(["sample", "length", "parameter"]).sort_index()
    for name in ("loss", "kl", "agreement"):
        np.testing.assert_allclose(mine[name], expected.mean()[name], atol=1e-5)


def _losses(folder, words):
    job = configure(*words)
    folder.mkdir()
    record = Record(folder, job.runner.tables)
    job.runner.run(job.source, job.selector, job.windows, MACHINE, job.seed, record, lambda: None)
    record.close("", dict)
    return folder / "losses.parquet"


def test_a_kv_head_alone_loses_less_than_its_layer_and_the_others_are_dense(asked, tmp_path):
    words = [*asked, "runner=gains", "selector=oracle", "runner.layers=[0]"]
    _, layer = measured(tmp_path / "layer", *words)
    _, heads = measured(tmp_path / "heads", *words, "runner.per=kv_head")
    kv_heads = int(heads["kv_heads"].iloc[0])
    assert set(heads["kv_head"]) == set(range(kv_heads))
    assert kv_heads > 1
    few = heads[heads["parameter"] == 0.1].groupby("kv_head")["kl"].mean()
    assert few.min() > 0
    assert few.max() < layer[layer["parameter"] == 0.1]["kl"].mean() * 2
    assert few.nunique() == kv_heads
    same = heads[heads["parameter"] == 0.1]["keys"].mean()
    assert same == pytest.approx(layer[layer["parameter"] == 0.1]["keys"].mean())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runner.per=head"], "choose layer or kv_head"),
        (["runner.layers=[]"], "runner.layers is empty"),
        (["runner.layers=[99]"], "runner.layers has 99"),
        (["runner.decode_tokens=48"], "are decoded: give longer lengths"),
        (["selector=mean_value"], "has no budget"),
        (["source=gaussian", "source.lengths=[64]"], "needs a language model"),
    ],
)
def test_what_cannot_be_measured_is_refused(asked, words, message):
    kept = [word for word in asked if not (words[0] == "source=gaussian" and word.startswith("source"))]

    def check():
        job = configure(*kept, "runner=gains", *words)
        job.runner.check(job.source, job.selector, job.windows)

    with pytest.raises(UserError, match=message):
        check()


def test_the_findings_name_the_layers_that_lose_most(asked, tmp_path):
    job, lines = measured(tmp_path / "gains", *asked, "runner=gains", "selector=oracle")
    (table,) = job.runner.findings(tmp_path / "gains", {"label": "tiny", "seconds": 1.0}).shown
    assert table.row_count == 3
    said = "of 64 tokens, the longest of 2 lengths, in 1 s"
    assert said in str(table.title)
    worst = lines[(lines["length"] == 64) & (lines["parameter"] == 0.1)].groupby("layer")["kl"].mean().idxmax()
    assert next(iter(table.columns[-1].cells)).split()[0] == str(worst)
    assert "kl" in "".join(job.runner.curves(tmp_path / "gains").columns)
    assert dataclasses.asdict(job.runner)["per"] == "layer"
