"""A long pass reads its feed-forward networks in tiles: the same states, and no activation of all tokens at once."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.models import tiles
from experiments.models.load import load_model
from experiments.models.locate import locate
from experiments.models.probe import forward
from tests.models import small

TOKENS, TILE = 100, 16
NETWORKS = {"llama": 3, "mistral": 3, "gemma3": 3, "gemma2": 3, "qwen3": 3, "gpt2": 3, "falcon": 3}


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made inside has, of those with a width."""

    def __init__(self, width):
        super().__init__()
        self.width, self.most = width, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and tensor.shape[-1] == self.width:
                self.most = max(self.most, tensor.numel() // self.width)
        return result


def loaded(family, folder, **settings):
    return load_model(locate(str(small.save(family, folder, **settings))), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("family", NETWORKS)
def test_tiles_change_nothing_but_rounding(family, tmp_path, monkeypatch):
    model = loaded(family, tmp_path)
    token_N = torch.arange(TOKENS) % small.VOCABULARY
    whole = forward(model, token_N)
    monkeypatch.setattr(tiles, "LONGEST", TOKENS - 1)
    monkeypatch.setattr(tiles, "TILE", TILE)
    calls = []
    for module in model.modules():
        if tiles._is_feed_forward(module):
            module.register_forward_hook(lambda _, inputs, output: calls.append(output.shape))
    torch.testing.assert_close(forward(model, token_N), whole, rtol=1e-5, atol=1e-5)
    assert len(calls) == NETWORKS[family]
    assert all("forward" not in vars(module) for module in model.modules())


def test_no_inner_activation_of_all_tokens_is_made(tmp_path, monkeypatch):
    model = loaded("llama", tmp_path, intermediate_size=72)
    token_N = torch.arange(TOKENS) % small.VOCABULARY
    with Largest(72) as whole:
        forward(model, token_N)
    monkeypatch.setattr(tiles, "LONGEST", TOKENS - 1)
    monkeypatch.setattr(tiles, "TILE", TILE)
    with Largest(72) as in_tiles:
        forward(model, token_N)
    assert (whole.most, in_tiles.most) == (TOKENS, TILE)


@pytest.mark.parametrize("raises", [False, True])
def test_a_forward_that_the_instance_had_is_put_back(raises, tmp_path, monkeypatch):
    network = next(filter(tiles._is_feed_forward, loaded("llama", tmp_path).modules()))
    own = network.forward
    network.forward = own
    with pytest.raises(ValueError, match="stop") if raises else torch.no_grad(), tiles.tiled(network, 10**6):
        assert network.forward is not own
        if raises:
            raise ValueError("stop")
    assert vars(network)["forward"] is own


def test_what_mixes_tokens_or_gives_another_width_is_left_alone():
    linear, act = torch.nn.Linear, torch.nn.SiLU()
    assert tiles._is_feed_forward(torch.nn.Sequential(linear(4, 9), act, linear(9, 4)))
    assert not tiles._is_feed_forward(torch.nn.Sequential(linear(4, 9), act, linear(9, 5)))
    assert not tiles._is_feed_forward(torch.nn.Sequential(linear(4, 9), torch.nn.Conv1d(9, 9, 3), linear(9, 4)))
    assert not tiles._is_feed_forward(torch.nn.Sequential(linear(4, 4), linear(4, 4)))  # no activation: an attention
