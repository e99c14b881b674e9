"""What a model's configuration says of its shape before any weight is loaded: parameters, heads, and what rows see.

Shape letters: N context lengths, K kinds of heads, by what they see.
"""

from __future__ import annotations

import copy
import inspect
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.errors import UserError
from experiments.models.library import transformers_quietly

SLIDING, CHUNKED = "sliding_attention", "chunked_attention"
_Kind = tuple[str, int | None, int | None]
FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv")  # weights that make queries, keys and values in one go
NEEDED = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")


def check_config(label: str, config: Any) -> None:
    """Raise UserError unless a configuration says what every softmax transformer's says."""
    for name in NEEDED:
        try:
            value = getattr(config, name)
        except AttributeError:
            value = None
        except RuntimeError:  # a value per layer
            value = 1
        if not value:
            raise UserError(
                f"{label}: its config.json, of type {config.model_type}, gives no {name}; only transformers with "
                "softmax attention over tokens are measured"
            )


def skeleton(config: Any) -> nn.Module:
    """Return the model of a configuration, without its head and without memory for its weights."""
    return _skeleton(_Key(config))


def parameters(config: Any) -> int:
    """Return the number of a model's parameters, those of an untied head included."""
    count = sum(tensor.numel() for tensor in skeleton(config).parameters())
    return count + (0 if getattr(config, "tie_word_embeddings", True) else config.vocab_size * config.hidden_size)


def longest_context(config: Any) -> int | None:
    """Return the most tokens that a model reads, None if its configuration names no limit.

    RoBERTa counts positions from the index after the padding's, so that its table is longer than its longest context.
    """
    limits = [getattr(config, "max_position_embeddings", None)]
    for name, module in skeleton(config).named_modules():
        table = name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        if table and module.padding_idx is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    named = [int(limit) for limit in limits if limit and limit > 0]
    return min(named) if named else None


def heads_of_layers(config: Any) -> list[int]:
    """Return the query heads of each layer, as far as the configuration tells; a run counts those that it meets."""
    listed = getattr(config, "num_attention_heads_per_layer", None)
    return list(listed) if listed else [layer.num_attention_heads for layer in config.per_layer_config]


def kv_heads_of_layers(config: Any) -> list[int]:
    """Return the KV heads of each layer; every query head has its own where the configuration names none."""
    heads = heads_of_layers(config)
    listed = [getattr(layer, "num_key_value_heads", None) for layer in config.per_layer_config]
    return [kv_heads or own for kv_heads, own in zip(listed, heads, strict=True)]


def heads_per_kv_head(config: Any) -> list[int]:
    """Return how many query heads of each layer share a KV head."""
    return [heads // kv for heads, kv in zip(heads_of_layers(config), kv_heads_of_layers(config), strict=True)]


def cache_dim(config: Any) -> int | None:
    """Return the dimension of a key, and of a value, that caches hold for every KV head; None where it is not told.

    It is `head_dim`, if the weights of every layer project onto so many keys and values: latent attention, layers of
    several widths and heads that the configuration counts otherwise do not.
    """
    dim, kv_heads = head_dim(config), kv_heads_of_layers(config)
    both = [(heads + 2 * kv) * dim for heads, kv in zip(heads_of_layers(config), kv_heads, strict=True)]
    alone = [kv * dim for kv in kv_heads]
    widths: dict[str, list[int]] = {}
    for name, module in skeleton(config).named_modules():
        if isinstance(module, nn.Linear | transformers_quietly().Conv1D):
            out = module.weight.shape[0 if isinstance(module, nn.Linear) else 1]
            widths.setdefault(name.rpartition(".")[2], []).append(int(out))
    fused = any(widths.get(name) == both for name in FUSED)
    return dim if fused or widths.get("k_proj") == widths.get("v_proj") == alone else None


def head_dim(config: Any) -> int:
    """Return the dimension of a head of the first layer."""
    layer = config.per_layer_config[0]
    return getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads


def keys_seen(config: Any, n_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of n keys rows see in each kind of layer [kinds, N], and the heads of all its layers [kinds].

    A sliding window or a chunk hides the rest. Where no kinds of layers are named, a window counts if the model's type
    has one; others ignore such a key of a config.json. `visible.check_seen` compares this with the masks
    of the loaded model.
    """
    seen: dict[_Kind, int] = {}
    for kind, heads in zip(_kinds(config), heads_of_layers(config), strict=True):
        seen[kind] = seen.get(kind, 0) + heads
    n_KN = [_seen(n_N, *kind) for kind in seen]
    return np.stack(n_KN), np.array(list(seen.values()), float)


def keys_seen_by_layers(config: Any, n_N: np.ndarray) -> np.ndarray:
    """Return how many of n keys rows see in each layer [layers, N]; see `keys_seen`."""
    return np.stack([_seen(n_N, *kind) for kind in _kinds(config)])


def _kinds(config: Any) -> list[_Kind]:
    """Return name, sliding window and chunk of each layer."""
    kinds = getattr(config, "layer_types", None)
    has_window = "sliding_window" in inspect.signature(type(config)).parameters
    result = []
    for index, layer in enumerate(config.per_layer_config):
        window, chunk = getattr(layer, "sliding_window", None), getattr(layer, "attention_chunk_size", None)
        slides = has_window and bool(window) and getattr(layer, "use_sliding_window", True)
        kind = kinds[index] if kinds else SLIDING if slides else "full_attention"
        result.append((kind, window, chunk))
    return result


def _seen(n_N: np.ndarray, kind: str, window: int | None, chunk: int | None) -> np.ndarray:
    if kind == SLIDING and window:
        return np.minimum(n_N, window)
    if kind == CHUNKED and chunk:
        return (n_N - 1) % chunk + 1
    return n_N


class _Key:
    """A configuration as a key: equal if its content is."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self._json = config.to_json_string(use_diff=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._json == other._json

    def __hash__(self) -> int:
        return hash(self._json)


@lru_cache(maxsize=8)
def _skeleton(key: _Key) -> nn.Module:
    transformers = transformers_quietly()
    config = copy.deepcopy(key.config)
    has_body = type(config) in transformers.MODEL_MAPPING
    try:
        with torch.device("meta"):
            auto = transformers.AutoModel if has_body else transformers.AutoModelForCausalLM
            return auto.from_config(config, trust_remote_code=True)  # code that the user did not trust was not read
    except Exception as error:  # a configuration fails in as many ways as there are models
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"transformers makes no model of a config.json of type {config.model_type} ({reason})"
        ) from error
