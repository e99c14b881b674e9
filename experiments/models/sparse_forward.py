"""Run a model whose rows attend to their k(n) most probable keys alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from experiments.measures.top_k import top_k_attention
from experiments.models.probe import Attention, intercept

BLOCK = 256  # rows at a time: their logits stay in the cache


def attend_to_top_k(model: Any, keys_kept: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
    """Make every row of every layer of `model` attend to its `keys_kept` most probable keys, renormalised.

    Parameters
    ----------
    keys_kept
        Maps the number of keys that rows can see [R] int64 to the number that they keep [R] int64, within [1, n].

    Rows are worked off in blocks against the keys they can see; nothing n x n is held.
    """

    def attend(attention: Attention) -> Tensor:
        heads, tokens, _ = attention.query_HND.shape
        output_HNV = attention.query_HND.new_empty(heads, tokens, attention.value_GNV.shape[-1], dtype=torch.float32)
        for head in range(heads):
            kv_head = attention.kv_head(head)
            for start in range(0, tokens, BLOCK):
                stop = min(start + BLOCK, tokens)
                keys = stop if attention.causal else tokens
                position_R = torch.arange(start, stop, device=output_HNV.device)
                query_RD = attention.query_HND[head, start:stop].float() * attention.scale
                logits_RN = query_RD @ attention.key_GND[kv_head, :keys].float().T
                visible_RN = attention.visible(head, position_R, keys)
                if visible_RN is None:
                    n_R = torch.full((stop - start,), keys, device=output_HNV.device)
                else:
                    logits_RN.masked_fill_(~visible_RN, -torch.inf)
                    n_R = visible_RN.sum(-1)
                value_NV = attention.value_GNV[kv_head, :keys]
                output_HNV[head, start:stop] = top_k_attention(logits_RN, value_NV, keys_kept(n_R))
        return output_HNV

    return intercept(model, attend)
