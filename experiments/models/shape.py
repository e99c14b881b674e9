"""What a model's configuration says of its shape before any weight is loaded: parameters, heads, and what rows see.

Shape letters: L layers, N rows of a context, the i-th with i + 1 keys before it and its own.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.errors import UserError
from experiments.models.library import transformers_quietly

NEEDED = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")


def check_config(label: str, config: Any) -> None:
    """Raise UserError unless a configuration says what every softmax transformer's says."""
    for name in NEEDED:
        try:
            known = getattr(config, name)
        except AttributeError:
            known = None
        except RuntimeError:  # a value per layer
            known = 1
        if not known:
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

    Where positions are counted from the place after the padding's (RoBERTa), the table holds fewer tokens than it has
    places.
    """
    limits = [getattr(config, "max_position_embeddings", None)]
    for name, module in skeleton(config).named_modules():
        table = name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        if table and module.padding_idx is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    known = [int(limit) for limit in limits if limit and limit > 0]
    return min(known) if known else None


def heads_of_layers(config: Any) -> list[int]:
    """Return the query heads of each layer, as far as the configuration tells; a run counts those that it meets."""
    listed = getattr(config, "num_attention_heads_per_layer", None)
    return list(listed) if listed else [layer.num_attention_heads for layer in config.per_layer_config]


def head_dim(config: Any) -> int:
    """Return the dimension of a head of the first layer."""
    layer = config.per_layer_config[0]
    return getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads


def keys_seen(config: Any, n_N: np.ndarray) -> np.ndarray:
    """Return how many of its n keys a row sees in each layer [L, N]: a sliding window or a chunk hides the rest."""
    layers = config.num_hidden_layers
    window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        slides = bool(window) and getattr(config, "use_sliding_window", True)
        kinds = ["sliding_attention" if slides else "full_attention"] * layers
    seen = {
        "sliding_attention": np.minimum(n_N, window or np.inf),
        "chunked_attention": (n_N - 1) % chunk + 1 if chunk else n_N,
    }
    return np.stack([seen.get(kind, n_N) for kind in kinds])


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
    known = type(config) in transformers.MODEL_MAPPING
    try:
        with torch.device("meta"):
            auto = transformers.AutoModel if known else transformers.AutoModelForCausalLM
            return auto.from_config(config, trust_remote_code=True)  # code that the user did not trust was not read
    except Exception as error:  # a configuration fails in as many ways as there are models
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"transformers makes no model of a config.json of type {config.model_type} ({reason})"
        ) from error
