"""Let kvpress cut each KV head by a ratio of its own: what a head is not to keep is masked, as AdaKV's keys are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from kvpress import BasePress, ScorerPress
from kvpress.utils import compute_n_kept
from torch import Tensor
from transformers import DynamicCache

from examples.kvpress.decode import keys_kept
from experiments.errors import UserError


@dataclass
class PerHeadCompressionPress(BasePress):
    """Keep in each KV head of each layer the keys that a press scores highest, as many as the head's ratio leaves.

    The cache keeps its length, and no memory is freed: when tokens are decoded, kvpress puts a key in the place of each
    masked one that the queries are to give no mass (`decode.states_on` sees to it). What is masked is kept with the
    model, and is of the prompt that was read last.

    Attributes
    ----------
    press
        It scores; its own ratio does not count.
    compression_ratios
        Of each KV head, by layer, as `head_ratios` returns them. They are rounded down to whole keys as kvpress does.
    """

    press: ScorerPress
    compression_ratios: Sequence[Sequence[float]]

    def compress(
        self, module: Any, hidden_states: Tensor, keys: Tensor, values: Tensor, attentions: Tensor | None, kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Mask what each KV head drops, and return all keys and values [batch, G, N, D].

        Raises
        ------
        UserError
            If the model attends eagerly, which kvpress cannot mask, or has another number of KV heads.
        """
        if module.config._attn_implementation == "eager":
            raise UserError("kvpress masks no keys of eager attention: load the model with sdpa or flash attention")
        ratios, (_, groups, length, _) = self.compression_ratios[module.layer_idx], keys.shape
        if len(ratios) != groups:
            raise UserError(f"layer {module.layer_idx}: ratios of {len(ratios)} KV heads, but it has {groups}")
        if not any(ratios):
            return keys, values  # a score takes a prompt longer than the observation window
        score_1GN = self.press.score(module, hidden_states, keys, values, attentions, kwargs)
        dropped_1GN = torch.ones_like(score_1GN, dtype=torch.bool)
        for kv_head, ratio in enumerate(ratios):
            kept_1K = score_1GN[:, kv_head].topk(compute_n_kept(length, ratio), dim=-1).indices
            dropped_1GN[:, kv_head].scatter_(1, kept_1K, False)
        module.masked_key_indices = dropped_1GN.nonzero(as_tuple=True)
        return keys, values


def keys_per_head(model: Any, cache: DynamicCache) -> list[list[int]]:
    """Return how many keys of the prompt that was read last each KV head has left, by layer."""
    result = []
    for layer, held, cached in zip(model.model.layers, keys_kept(cache), cache.layers, strict=True):
        masked = layer.self_attn.masked_key_indices  # of each masked key: its batch, KV head and position
        kv_heads = range(cached.keys.shape[1])
        result.append([held - (0 if masked is None else int((masked[1] == kv_head).sum())) for kv_head in kv_heads])
    return result
