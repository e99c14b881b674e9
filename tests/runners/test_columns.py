"""The columns runner against transformers' own eager attention in float64, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from experiments.errors import UserError
from experiments.launch import configure
from tests.runners.conftest import arguments_of

SMALL = ["runner=columns", "source=checkpoint", "source.lengths=[48,80]", "source.samples=3", "source.rows=6"]
SMALL += ["source.stride=3", "source.dtype=float64", "runner.keys=[1,5,20,60]", "tracking=disabled"]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_recall_is_that_of_eager_attention(family, main, tmp_path):
    arguments = arguments_of(SMALL, family, tmp_path)
    assert main(arguments) == 0
    (table,) = (tmp_path / "out" / "runs").glob("*/columns.parquet")
    lines = pd.read_parquet(table)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float64
    ).eval()
    before, checked = {}, 0
    for sample, token_N in sorted(configure(*arguments).source.documents(0).items()):
        with torch.no_grad():
            maps = model(token_N[None], output_attentions=True).attentions
        for (layer, head, length), part in lines[lines["sample"] == sample].groupby(["layer", "head", "length"]):
            p_NN = maps[layer][0, head, :length, :length].numpy()
            position_R = length - 1 - 3 * np.arange(6)[::-1]
            earlier_N, later_N = (p_NN[half].mean(0) for half in (position_R[:3], position_R[3:]))
            by = {"same_rows": later_N, "earlier_rows": earlier_N} | {
                way: mean_N
                for way, mean_N in (("other_text", before.get((layer, head, length))),)
                if mean_N is not None
            }
            before[layer, head, length] = later_N
            assert set(part["chosen"]) == {*by, "each_row"}
            for line in part.itertuples():
                own = np.sort(p_NN[position_R[3:]], 1)[:, -line.k :].sum(1).mean()
                if line.chosen != "each_row":
                    own = later_N[np.argsort(-by[line.chosen], kind="stable")[: line.k]].sum()
                assert line.rows == 3
                assert line.recall == pytest.approx(own, abs=1e-6)
                checked += 1
    assert checked == len(lines)
    assert set(lines.loc[lines["length"] == 48, "k"]) == {1, 5, 20}


def test_what_has_no_columns_is_refused(main, tmp_path, capsys):
    job = configure("runner=columns")
    with pytest.raises(UserError, match="keys in an order"):
        job.runner.check(job.source, job.selector, job.windows)
    for odd, words in (("source.rows=1", "one half of the rows"), ("runner.keys=[9999]", "so many keys")):
        job = configure("runner=columns", "source=smollm2", "source.lengths=[64]", odd)
        with pytest.raises(UserError, match=words):
            job.runner.check(job.source, job.selector, job.windows)
    assert main(arguments_of(SMALL, "bert", tmp_path)) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("value", ["[]", "[0]", "[-1]"])
def test_no_number_of_columns_is_refused(value):
    with pytest.raises(UserError, match=r"runner\.keys"):
        configure("runner=columns", f"runner.keys={value}")
