"""What a method puts out for a block of rows: the attention that a model goes on with.

Shape letters: R rows, N keys, V value dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from experiments.answers import Answer, Estimate, Subset, TopK
from experiments.cache import softmax
from experiments.errors import UserError
from experiments.measures.compute import Compute


def output_of(
    answer: Answer,
    logits: Callable[[], Tensor],
    value_NV: Tensor,
    k_R: Tensor,
    compute: Compute,
    always_RN: Tensor | None = None,
    sink_R: Tensor | None = None,
) -> Tensor:
    """Return the outputs [R, V] of renormalised rows within windows of `k_R` keys.

    Parameters
    ----------
    logits
        Returns the scaled logits [R, N], float32 or better, -inf where a key is not visible.
    k_R
        Keys kept, at least 1 and at most those visible.
    always_RN
        Visible keys that are kept before all others, even if they are more than `k_R`; None for none.
    sink_R
        Logits of learned sinks; None for none.

    Raises
    ------
    UserError
        If an estimate has no value at this budget, or its row sums to nothing.
    """
    if isinstance(answer, Estimate):
        return _estimated(answer, logits, value_NV, k_R)
    if isinstance(answer, TopK) and always_RN is None:
        return compute.top_k_output(logits(), value_NV, k_R, sink_R)
    logits_RN = logits()
    if always_RN is not None:
        k_R = k_R.maximum(always_RN.sum(-1))
    if isinstance(answer, TopK):
        assert always_RN is not None
        # Ranked by other logits than they are weighed by: those always kept stand a nat above the largest.
        ranked_RN = torch.where(always_RN, logits_RN.amax(-1, keepdim=True) + 1.0, logits_RN)
        kept_RN = compute.top_k_mask(ranked_RN, k_R)
    else:
        kept_RN = _first(answer, k_R, compute, always_RN)
        if answer.weight is not None:
            weight_RN = answer.weight(k_R)
            if always_RN is not None:
                weight_RN = weight_RN.masked_fill(always_RN, 1.0)
            logits_RN = logits_RN + weight_RN.log().to(logits_RN.dtype)
    return softmax(logits_RN.masked_fill(~kept_RN, -torch.inf), sink_R) @ value_NV.to(logits_RN.dtype)


def _first(answer: Subset, k_R: Tensor, compute: Compute, always_RN: Tensor | None) -> Tensor:
    """Return which keys are among the first k of their row [R, N]."""
    if answer.turn is not None and always_RN is None:
        return compute.first_mask(answer.turn(), k_R)
    order_RN = answer.order()
    rank_N = torch.arange(order_RN.shape[1], device=order_RN.device)
    if always_RN is not None:
        others_RN = ~always_RN.gather(1, order_RN)
        order_RN = order_RN.gather(1, others_RN.int().argsort(dim=-1, stable=True))
    return torch.zeros_like(order_RN, dtype=torch.bool).scatter_(1, order_RN, rank_N < k_R[:, None])


def _estimated(answer: Estimate, logits: Callable[[], Tensor], value_NV: Tensor, k_R: Tensor) -> Tensor:
    if answer.output is not None:
        return answer.output(k_R)
    w_RN = answer.row(k_R, torch.logsumexp(logits().double(), dim=-1))
    sum_R1 = w_RN.sum(-1, keepdim=True)
    if not bool((sum_R1 > 0).all()):
        raise UserError("an estimated row sums to nothing, or has no value at so small a budget: give larger windows")
    return (w_RN / sum_R1) @ value_NV.to(w_RN.dtype)
