"""The distance runner against transformers' own eager attention in float64, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from experiments.errors import UserError
from experiments.launch import configure
from tests.runners.conftest import arguments_of

SMALL = ["runner=distance", "source=checkpoint", "source.lengths=[48,80]", "source.samples=2", "source.rows=5"]
SMALL += ["source.stride=3", "source.dtype=float64", "runner.per_octave=2", "tracking=disabled"]


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_every_range_is_that_of_eager_attention(family, main, tmp_path):
    arguments = arguments_of(SMALL, family, tmp_path)
    assert main(arguments) == 0
    (table,) = (tmp_path / "out" / "runs").glob("*/distance.parquet")
    lines = pd.read_parquet(table)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float64
    ).eval()
    checked = 0
    for sample, token_N in configure(*arguments).source.documents(0).items():
        with torch.no_grad():
            maps = model(token_N[None], output_attentions=True).attentions
        for (layer, head, length), part in lines[lines["sample"] == sample].groupby(["layer", "head", "length"]):
            p_NN = maps[layer][0, head].numpy()
            position_R = length - 1 - 3 * np.arange(5)
            for line in part.itertuples():
                of_distances = [
                    {(i, i - d): p_NN[i, i - d] for i in position_R if i >= d and p_NN[i, i - d] > 0}  # 0: hidden
                    for d in range(line.distance, line.last + 1)
                ]
                assert line.pairs == sum(map(len, of_distances))
                assert line.rows == 5
                every = [np.mean(list(of_d.values())) for of_d in of_distances if of_d]
                assert line.probability == pytest.approx(np.mean(every), rel=1e-6)
                checked += 1
    assert checked == len(lines)
    assert (
        lines.groupby("layer")["last"].max().tolist()
        == {
            "llama": [79, 79, 79],
            "gemma3": [15, 15, 15],
            "gpt2": [79, 79, 79],
        }[family]
    )


def test_rows_without_an_order_of_keys_and_encoders_are_refused(main, tmp_path, capsys):
    job = configure("runner=distance")
    with pytest.raises(UserError, match="keys in an order"):
        job.runner.check(job.source, job.selector, job.windows)
    assert main(arguments_of(SMALL, "bert", tmp_path)) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("value", ["0", "65", "-1"])
def test_an_odd_number_of_ranges_is_refused(value):
    with pytest.raises(UserError, match=r"runner\.per_octave"):
        configure("runner=distance", f"runner.per_octave={value}")
