"""Run a model whose dense attention is sharper than it was trained to be: a control for what windows do to a row."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from experiments.models.probe import Attention, intercept


def sharpened(model: Any, factor: float) -> AbstractContextManager[None]:
    """Multiply every logit by `factor` inside the context; 1 is dense attention as it is."""

    def attend(attention: Attention) -> Tensor:
        keys, queries = attention.key_GND.shape[1], attention.query_HND.shape[1]
        position_R = attention.first + torch.arange(queries, device=attention.key_GND.device)
        seen = [attention.visible(head, position_R, keys) for head in range(len(attention.query_HND))]
        visible_HRN = None if seen[0] is None else torch.stack([row for row in seen if row is not None])
        return scaled_dot_product_attention(
            attention.query_HND[None],
            attention.key_GND[None],
            attention.value_GNV[None],
            attn_mask=None if visible_HRN is None else visible_HRN[None],
            scale=attention.scale * factor,
            enable_gqa=True,
        )[0]

    return intercept(model, attend)
