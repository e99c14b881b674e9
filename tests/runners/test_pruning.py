"""The pruning runner through the command: its tables, its losses, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.models.load import load_model
from experiments.models.locate import locate
from experiments.models.loss import token_losses
from experiments.records.identity import identity
from tests.runners.conftest import arguments_of

SMALL = ["runner=pruning", "source=checkpoint", "source.lengths=[32]", "source.samples=2", "source.rows=2"]
SMALL += ["runner.tokens=16", "runner.steps=3", "runner.probes=2", "tracking=disabled"]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_all_heads_of_the_layers_are_measured_and_all_weights_lose_nothing(family, main, tmp_path):
    arguments = [*arguments_of(SMALL, family, tmp_path), "runner.shares=[1.0,0.5]", "source.layers=[0,2]"]
    assert main(arguments) == 0
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    lines, losses = pd.read_parquet(folder / "pruning.parquet"), pd.read_parquet(folder / "pruning_losses.parquet")
    assert len(lines) == 2 * 4 * 2 * 5 * 2  # layers, heads, samples, criteria, shares
    assert set(lines["layer"]) == {0, 2}
    assert set(lines["length"]) == set(lines["rows"]) == {16}
    every, half = lines[lines["share"] == 1], lines[lines["share"] == 0.5]
    assert (every[["tv", "output_error"]] == 0).all(axis=None)
    assert (every[["kept_query", "kept_key"]] == 1).all(axis=None)
    assert (half[["tv", "output_error"]] > 0).all(axis=None)
    assert (half[["kept_query", "kept_key"]] == 0.5).all(axis=None)

    losses = losses.set_index(["sample", "criterion", "share"])["loss"]
    assert len(losses) == 2 * (1 + 5 * 2)
    model = load_model(locate(str(tmp_path)), torch.float32, torch.device("cpu"), "AutoModelForCausalLM")
    source = configure(*arguments).source
    for sample, token_N in source.documents(0).items():
        dense = token_losses(model, token_N[16:32]).mean().item()
        assert losses[sample, "dense", 1.0] == pytest.approx(dense, abs=1e-5)
        for criterion in set(lines["criterion"]):
            assert losses[sample, criterion, 1.0] == losses[sample, "dense", 1.0]
            assert losses[sample, criterion, 0.5] != losses[sample, "dense", 1.0]


def test_a_sample_has_the_same_numbers_whatever_is_measured_beside_it(main, tmp_path):
    arguments = arguments_of(SMALL, "llama", tmp_path)
    assert main([*arguments, "source.layers=[1]"]) == 0
    assert main([*arguments, "source.layers=[1]", "source.samples=1", "runner.criteria=[softmax_saliency]"]) == 0
    parts = [pd.read_parquet(path) for path in (tmp_path / "out" / "runs").glob("*/pruning.parquet")]
    few, many = sorted(parts, key=len)
    same = many[(many["sample"] == 0) & (many["criterion"] == "softmax_saliency")]
    np.testing.assert_array_equal(few["tv"], same["tv"])


@pytest.mark.parametrize("family", ["gpt2", "falcon"])
def test_fused_weights_are_refused_in_one_line_by_a_plan_too(family, main, tmp_path, capsys):
    arguments = arguments_of(SMALL, family, tmp_path)
    for more in ([], ["plan=true"]):
        assert main([*arguments, *more]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "q_proj" in line]
        assert line.startswith("error: ")
        assert f"of type {family}" in line


def test_a_plan_says_what_it_would_measure(main, tmp_path, capsys):
    assert main([*arguments_of(SMALL, "llama", tmp_path), "plan=true"]) == 0
    assert "384 rows" in capsys.readouterr().out  # 2 samples x 3 layers x 4 heads x 16 tokens


def test_what_cannot_be_measured_is_refused(main, tmp_path, capsys):
    assert main(["runner=pruning", "tracking=disabled", f"outputs={tmp_path}"]) == 1
    assert "needs a language model" in capsys.readouterr().err
    assert main([*arguments_of(SMALL, "llama", tmp_path), "runner.tokens=17"]) == 1
    assert "runner.tokens=17" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override",
    ["criteria=[]", "criteria=[wanda,wanda]", "criteria=[size]", "shares=[]", "shares=[0]", "shares=[0.5,0.5]"],
)
def test_criteria_and_shares_are_checked(override):
    with pytest.raises(UserError, match=f"runner.{override.split('=')[0]}"):
        configure("runner=pruning", f"runner.{override}")


def test_only_what_decides_a_number_decides_the_run(tmp_path):
    arguments = arguments_of(SMALL, "llama", tmp_path)

    def fields(*more):
        return identity(configure(*arguments, *more))["fields"]

    assert fields() == fields("source.lengths=[20,32]") == fields("source.rows=3", "source.heads=[1]")
    assert fields() != fields("source.lengths=[40]")  # other pieces of the text
    assert fields() != fields("source.layers=[1]")
    assert fields() != fields("runner.steps=4")
    wanda = "runner.criteria=[wanda]"
    assert fields(wanda) == fields(wanda, "runner.steps=4", "runner.penalty=0", "runner.probes=3")
