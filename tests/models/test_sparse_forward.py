"""A model that attends to its top k: k = n is dense, k counts, and a later token changes nothing before it."""

import pytest
import torch

from experiments.models.load import load_model
from experiments.models.locate import locate
from experiments.models.probe import forward
from tests.models import small

CPU = torch.device("cpu")


@pytest.fixture(params=["llama", "mistral", "gpt2", "bert"])
def model(request, tmp_path):
    return load_model(locate(str(small.save(request.param, tmp_path))), torch.float32, CPU)


TOKENS = torch.arange(60) * 7 % small.VOCABULARY


def test_all_keys_are_the_dense_model(model):
    dense = forward(model, TOKENS)
    with small.attend_to_top_k(model, lambda rows, *_: rows.n_R):
        torch.testing.assert_close(forward(model, TOKENS), dense, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(forward(model, TOKENS), dense)


def test_fewer_keys_change_the_model_and_stay_causal(model):
    def keep(rows, *_):
        return rows.n_R.double().sqrt().ceil().long()

    dense = forward(model, TOKENS)
    with small.attend_to_top_k(model, keep):
        sparse = forward(model, TOKENS)
        shorter = forward(model, TOKENS[:-1])
    assert (sparse - dense).abs().max() > 1e-3
    if "Bert" not in type(model).__name__:
        torch.testing.assert_close(sparse[:, :-1], shorter, rtol=1e-4, atol=1e-4)
