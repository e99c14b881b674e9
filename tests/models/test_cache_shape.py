"""What a configuration says of KV heads and of the cache, against what the layers of its model hand over."""

import pytest
import torch
import transformers

from experiments.errors import UserError
from experiments.models.language_model import check_kv_heads
from experiments.models.probe import forward, watch
from experiments.models.shape import cache_dim, heads_per_kv_head, kv_heads_of_layers
from tests.models import zoo


def model_of(name):
    torch.manual_seed(0)
    return getattr(transformers, zoo.architectures()[name]).from_config(zoo.config_of(name)).eval()


def layers_of(model):
    """Return query heads, KV heads and the dimensions of keys and values of each layer, as it attends."""
    seen = []

    def look(attention):
        key_GND, value_GNV = attention.key_GND, attention.value_GNV
        seen.append((len(attention.query_HND), len(key_GND), key_GND.shape[-1], value_GNV.shape[-1]))

    with watch(model, look):
        forward(model, torch.arange(12))
    return seen


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen3", "gemma3_text", "gpt2", "gpt_neox", "gpt_bigcode", "phi3"]
)
def test_a_cache_is_as_wide_as_the_configuration_says(name):
    model = model_of(name)
    config, layers = model.config.get_text_config(), layers_of(model)
    dim = cache_dim(config)
    assert dim is not None
    assert {(key, value) for *_, key, value in layers} == {(dim, dim)}
    assert heads_per_kv_head(config) == [heads // kv_heads for heads, kv_heads, *_ in layers]
    check_kv_heads(model, kv_heads_of_layers(config))


@pytest.mark.parametrize("name", ["deepseek_v3", "gemma4_text", "jetmoe", "mimo_v2_flash"])
def test_a_cache_that_the_configuration_does_not_tell_has_no_width(name):
    model = model_of(name)
    config, layers = model.config.get_text_config(), layers_of(model)
    widths = {(kv_heads, key, value) for _, kv_heads, key, value in layers}
    assert len(widths) > 1 or any(key != value for _, key, value in widths) or name == "jetmoe"
    assert cache_dim(config) is None


@pytest.mark.parametrize("name", ["jetmoe", "mimo_v2_flash"])
def test_heads_that_share_otherwise_than_the_configuration_says_are_refused(name):
    model = model_of(name)
    with pytest.raises(UserError, match=r"layer \d has 4 KV heads, but its config.json says 2"):
        check_kv_heads(model, kv_heads_of_layers(model.config.get_text_config()))
