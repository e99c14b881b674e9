"""The same architecture with random weights: a control that needs a model's configuration and tokenizer alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.records.load import complete_runs, describe_all
from experiments.errors import UserError
from experiments.launch import configure, main
from experiments.models.load import CAUSAL, load_model
from experiments.records.identity import run_id
from tests.models import small

CPU = torch.device("cpu")


@pytest.fixture(params=["llama", "gpt2", "qwen3", "gemma3"])
def folder(request, tmp_path):
    """Return a folder that has a configuration and a tokenizer, and no weights."""
    model = tmp_path / "model"
    model.mkdir()
    small.save(request.param, model)
    (model / "model.safetensors").unlink()
    (tmp_path / "text.txt").write_text(small.text())
    return model


def source(folder, *overrides):
    lengths = ["source.lengths=[24,48]", "source.rows=4", "source.samples=2", "source.random_weights=3"]
    text = f"source.text={folder.parent / 'text.txt'}"
    return ["source=checkpoint", f"source.model={folder}", text, *lengths, *overrides]


def test_weights_follow_from_the_seed_alone(folder):
    def weights(seed, auto=CAUSAL):
        located = configure(*source(folder, f"source.random_weights={seed}")).source.located
        return load_model(located, torch.float32, CPU, auto).state_dict()

    state = torch.get_rng_state()
    one, again, other = weights(3), weights(3), weights(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_half_precision_leaves_rotary_frequencies_alone(tmp_path):
    """The buffers are those of a model that is loaded in the same type."""
    own = small.save("llama", tmp_path)
    located = configure("source=checkpoint", f"source.model={own}", "source.random_weights=0").source.located
    drawn = load_model(located, torch.bfloat16, CPU, CAUSAL)
    loaded = load_model(replace(located, random_weights=None), torch.bfloat16, CPU, CAUSAL)
    assert {parameter.dtype for parameter in drawn.parameters()} == {torch.bfloat16}
    buffers = dict(loaded.named_buffers())
    assert buffers
    for name, buffer in drawn.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name])


def test_rows_are_measured_and_are_a_comparison(folder, tmp_path, monkeypatch):
    outputs = tmp_path / "out"
    arguments = [*source(folder), f"outputs={outputs}", "tracking=disabled", "windows/rules=[fixed]"]
    monkeypatch.setattr("sys.argv", ["run.py", *arguments])
    assert main() == 0
    runs = complete_runs(outputs)
    table = describe_all(runs)
    assert table["label"].tolist() == ["model, random weights, text"]
    assert table["role"].tolist() == ["comparison"]
    rows = pd.read_parquet(runs[0].folder / "rows.parquet")
    uniform = rows["entropy"] / np.log(rows["n"])
    assert (uniform > 0.5).all()  # random keys have nothing that a query looks for


def test_it_is_another_run_and_without_it_weights_are_needed(folder):
    job, other = configure(*source(folder)), configure(*source(folder, "source.random_weights=4"))
    assert run_id(job) != run_id(other)
    assert job.source.hashes()["model"] != other.source.hashes()["model"]
    with pytest.raises(UserError, match="no weights in safetensors or GGUF"):
        load_model(configure(*source(folder, "source.random_weights=null")).source.located, torch.float32, CPU)
    with pytest.raises(UserError, match=r"source\.random_weights=-1"):
        configure(*source(folder, "source.random_weights=-1"))


def test_another_model_keeps_the_presets_random_weights(folder):
    of_model = configure("experiment=random_weights", "source=checkpoint", f"source.model={folder}").source
    assert of_model.random_weights == 0
