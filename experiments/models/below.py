"""The attention of the layers below, for methods that use the row of another layer.

Shape letters: H query heads, R rows, N keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.cache import cap_, softmax
from experiments.models.probe import Attention


class LayersBelow:
    """Queries and keys of the last layers of the pass that a model is in."""

    def __init__(self, most: int) -> None:
        """Keep the `most` layers below the present one."""
        self._most = most
        self._of_layer: dict[int, Attention] = {}

    def add(self, attention: Attention) -> None:
        """Keep a layer, and let go of those too far below it, or of an earlier pass."""
        kept = {layer: part for layer, part in self._of_layer.items() if 0 < attention.layer - layer <= self._most}
        self._of_layer = kept | {attention.layer: attention}

    def rows(self, layer: int, head_R: Tensor, position_R: Tensor) -> Tensor | None:
        """Return the attention [R, N] of heads at positions of this pass in a layer; None if it is not kept."""
        attention = self._of_layer.get(layer)
        if (
            attention is None
            or int(head_R.max()) >= len(attention.query_HND)
            or int(position_R.min()) < attention.first
        ):
            return None
        keys = attention.key_GND.shape[1]
        row_RN = attention.key_GND.new_empty(len(head_R), keys, dtype=torch.float32)
        for head in head_R.unique().tolist():
            rows_R = head_R == head
            at_R = position_R[rows_R]
            query_RD = attention.query_HND[head, at_R - attention.first].float() * attention.scale
            logits_RN = cap_(query_RD @ attention.key_GND[attention.kv_head(head)].float().T, attention.softcap)
            visible_RN = attention.visible(head, at_R, keys)
            if visible_RN is not None:
                logits_RN.masked_fill_(~visible_RN, -torch.inf)
            row_RN[rows_R] = softmax(logits_RN, None if attention.sink_H is None else attention.sink_H[head])
        return row_RN
