"""Masks that are made by rows: what models and observers see of them is what whole masks say."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModel,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    Llama4TextConfig,
    MistralConfig,
    ModernBertConfig,
    Qwen3Config,
)

from experiments.models import masks
from experiments.models.masks import LateMask, late_mask
from experiments.models.probe import check_watchable, forward, watch

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "max_position_embeddings": 4096,
}
KINDS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
CONFIGS = {
    "mistral": MistralConfig(**SIZES, sliding_window=24),
    "qwen3": Qwen3Config(**SIZES, **KINDS, use_sliding_window=True, max_window_layers=0),
    "gemma2": Gemma2Config(**SIZES, **KINDS),
    "gemma3": Gemma3TextConfig(**SIZES, **KINDS),
    "gpt_oss": GptOssConfig(**SIZES, **KINDS, **EXPERTS),
    "modernbert": ModernBertConfig(
        **(SIZES | {"head_dim": None}), local_attention=24, global_attn_every_n_layers=2, pad_token_id=0
    ),
    "llama4": Llama4TextConfig(
        **SIZES, attention_chunk_size=24, layer_types=["chunked_attention", "full_attention"], **EXPERTS
    ),
}


def model_of(name):
    torch.manual_seed(0)
    return AutoModel.from_config(CONFIGS[name]).eval()


def seen(model, token_N):
    """Return the last hidden states, and which keys the queries of each layer see [N, N], None for a plain layer."""
    visible = []

    def look(attention):
        position_R = torch.arange(len(token_N))
        none = attention.mask is None
        visible.append(None if none else attention.visible(0, position_R, len(token_N)))
        assert none or attention.masks == 1

    with watch(model, look):
        return forward(model, token_N), visible


@pytest.mark.parametrize("tokens", [700, 257])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_model_reads_the_same_by_masks_that_are_made_late(name, tokens, monkeypatch):
    model = model_of(name)
    token_N = torch.arange(tokens) % 61
    assert check_watchable(model, token_N[:12]) == (name != "modernbert")  # whose rows see later keys
    states, visible = seen(model, token_N)
    late = []
    monkeypatch.setattr(masks, "MOST_ENTRIES", 0)
    rows = LateMask.rows
    monkeypatch.setattr(LateMask, "rows", lambda *given: late.append(1) or rows(*given))
    again, same = seen(model, token_N)
    assert late
    torch.testing.assert_close(again, states, rtol=1e-5, atol=1e-5)
    # what no whole mask shows, a late one says by its function: a plain layer is causal
    for whole, by_rows in zip(visible, same, strict=True):
        assert (whole is None) == (by_rows is None)
        if whole is not None:
            assert torch.equal(whole, by_rows)
    assert any(mask is not None for mask in visible)


class Largest(TorchDispatchMode):
    """Remembers the most entries of a tensor that was made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.numel())
        return result


@pytest.mark.parametrize("name", ["mistral", "gemma3", "llama4"])
def test_nothing_as_large_as_a_whole_mask_is_made(name):
    model, tokens = model_of(name), 1600
    with Largest() as largest, watch(model, lambda attention: None):
        forward(model, torch.arange(tokens) % 61)
    assert tokens**2 > masks.MOST_ENTRIES
    assert largest.entries <= max(tokens * masks.BLOCK, tokens * SIZES["vocab_size"])


def causal_window(_batch, _head, query, key):
    return (key <= query) & (key > query - 5)


def arguments(queries=40, keys=50, offset=10):
    shape = {"batch_size": 1, "q_length": queries, "kv_length": keys, "q_offset": offset, "kv_offset": 0}
    return shape | {"mask_function": causal_window, "allow_is_causal_skip": True, "local_size": 5, "device": "cpu"}


def test_whatever_else_is_done_with_a_late_mask_is_done_with_the_whole_one(monkeypatch):
    whole = late_mask(**arguments())
    assert not isinstance(whole, LateMask)
    monkeypatch.setattr(masks, "MOST_ENTRIES", 0)
    late = late_mask(**arguments())
    assert isinstance(late, LateMask)
    assert isinstance(late, torch.Tensor)
    assert late.shape == whole.shape == (1, 1, 40, 50)
    assert torch.equal(~late, ~whole)
    assert torch.equal(late[:, :, 3:7, :20], whole[:, :, 3:7, :20])
    assert torch.equal(torch.where(late, 0.0, -torch.inf), torch.where(whole, 0.0, -torch.inf))
    assert not isinstance(late.float(), LateMask)
    moved = late.to(torch.device("cpu"))
    assert isinstance(moved, LateMask)
    assert torch.equal(moved.whole(), whole)
    assert late.span(0, 8) == slice(6, 18)


def test_a_mask_that_can_be_left_out_is(monkeypatch):
    monkeypatch.setattr(masks, "MOST_ENTRIES", 0)
    assert late_mask(**arguments(50, 50, 0) | {"local_size": None}) is None
    assert late_mask(**arguments(1, 50, 49) | {"local_size": None}) is None
    padding = torch.ones(1, 50, dtype=torch.bool)
    padding[0, 7] = False
    assert not isinstance(late_mask(**arguments(), attention_mask=padding), LateMask)
