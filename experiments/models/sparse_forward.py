"""Run a model whose rows attend to their k(n) most probable keys alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from experiments.measures import RowFacts
from experiments.measures.exact import ExactRows
from experiments.measures.quick import QuickRows
from experiments.measures.scratch import scratch
from experiments.measures.top_k import top_k_attention
from experiments.models.probe import Attention, intercept
from experiments.rows import check_finite

BLOCK = 256  # rows at a time: their logits stay in the cache


class LazyRows:
    """What is known of a block of rows; whatever needs more than the number of visible keys is found when asked for."""

    def __init__(self, logits_RN: Tensor, n_R: Tensor) -> None:
        self._logits_RN = logits_RN
        self.n_R = n_R

    @cached_property
    def _rows(self) -> RowFacts:
        on_cpu = self._logits_RN.device.type == "cpu"
        return QuickRows.from_logits(self._logits_RN) if on_cpu else ExactRows.from_logits(self._logits_RN)

    def k_min(self, eta: float) -> Tensor:
        """Return the smallest k whose k most probable keys leave a dropped mass <= eta, per row [R] int64."""
        return self._rows.k_min(eta)

    def count_above(self, epsilon: float) -> Tensor:
        """Return #{j: p_j > epsilon} per row [R] int64."""
        return self._rows.count_above(epsilon)


def attend_to_top_k(
    model: Any,
    keys_kept: Callable[[RowFacts, Tensor, int, int], Tensor],
    *,
    layers: Collection[int] | None = None,
    keep_first: int = 0,
    keep_recent: int = 0,
) -> AbstractContextManager[None]:
    """Make every row of `model` attend to its `keys_kept` most probable keys, renormalised.

    Parameters
    ----------
    keys_kept
        Maps a block of rows, their positions [R], the layer and the query head to the number of keys that they keep
        [R] int64, within [1, n].
    layers
        Layers that do so, the others attend densely; None for all.
    keep_first, keep_recent
        Tokens at the start, and up to the row's own, that are kept before all others. They count as keys kept; a row
        with a smaller window keeps all of them.

    Rows are worked off in blocks against the keys they can see; nothing n x n is held.
    """

    def attend(attention: Attention) -> Tensor | None:
        if layers is not None and attention.layer not in layers:
            return None
        heads, tokens, _ = attention.query_HND.shape
        output_HNV = attention.query_HND.new_empty(heads, tokens, attention.value_GNV.shape[-1], dtype=torch.float32)
        for head in range(heads):
            kv_head = attention.kv_head(head)
            for start in range(0, tokens, BLOCK):
                stop = min(start + BLOCK, tokens)
                keys = attention.first + (stop if attention.causal else tokens)
                position_R = attention.first + torch.arange(start, stop, device=output_HNV.device)
                query_RD = attention.query_HND[head, start:stop].float() * attention.scale
                key_ND = attention.key_GND[kv_head, :keys].float()
                check_finite(query_RD, key_ND, f"layer {attention.layer}, head {head}")
                out = scratch("logits of a model", stop - start, keys) if query_RD.device.type == "cpu" else None
                logits_RN = torch.mm(query_RD, key_ND.T, out=out)
                n_R = _hide(logits_RN, attention, head, position_R)
                k_R = keys_kept(LazyRows(logits_RN, n_R), position_R, attention.layer, head)
                value_NV = attention.value_GNV[kv_head, :keys]
                first_RN = None
                if keep_first or keep_recent:
                    first_RN = _always_kept(position_R, keys, keep_first, keep_recent) & logits_RN.isfinite()
                output_HNV[head, start:stop] = top_k_attention(logits_RN, value_NV, k_R, first_RN)
        return output_HNV

    return intercept(model, attend)


def _hide(logits_RN: Tensor, attention: Attention, head: int, position_R: Tensor) -> Tensor:
    """Set the logits of keys that a row does not see to -inf; return how many it sees [R]."""
    rows, keys = logits_RN.shape
    if attention.causal:
        # Neighbouring rows differ in their last keys alone: no mask as large as the logits is made.
        later_RR = torch.ones(rows, rows, dtype=torch.bool, device=logits_RN.device).triu(1)
        logits_RN[:, keys - rows :].masked_fill_(later_RR, -torch.inf)
        return position_R + 1
    visible_RN = attention.visible(head, position_R, keys)
    if visible_RN is None:
        return torch.full_like(position_R, keys)
    logits_RN.masked_fill_(~visible_RN, -torch.inf)
    return visible_RN.sum(-1)


def _always_kept(position_R: Tensor, keys: int, first: int, recent: int) -> Tensor:
    """Return which keys come before all others [R, keys]."""
    key_N = torch.arange(keys, device=position_R.device)
    age_RN = position_R[:, None] - key_N
    return (key_N < first) | ((age_RN >= 0) & (age_RN < recent))
