"""Exact rows, ranked by a float32 sort and weighed in float64.

Shape letters: M rows of any heads, N keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.batched.running_sums import running_sums
from experiments.reference.exact import FLOAT32_GAP, MAX_GAP, ExactRows, sink_weights


def ranked(logits_MN: Tensor, sink_M: Tensor | None) -> tuple[ExactRows, Tensor]:
    """Rank rows of logits as `ExactRows.from_logits` does; return which of them have a softmax, besides [M].

    The numbers of a row that has none mean nothing.

    Parameters
    ----------
    logits_MN
        -inf where a key is not visible.
    sink_M
        Logits of learned sinks; None for none.
    """
    highest_M1 = logits_MN.amax(-1, keepdim=True)
    gap_MN = logits_MN - highest_M1
    # Weights of the reference, and far below the largest logit, where float32 has none, the gap: an order with its ties
    turn_MN = torch.where(gap_MN > -FLOAT32_GAP, gap_MN.exp(), gap_MN.clamp(min=-MAX_GAP))
    turn_MN.masked_fill_(torch.isneginf(logits_MN), -torch.inf)
    del gap_MN
    turn_MN, order_MN = turn_MN.sort(dim=-1, descending=True, stable=True)
    wide_MN = turn_MN.double()
    weight_MN = torch.where(turn_MN > 0, wide_MN, wide_MN.exp())
    del turn_MN, wide_MN
    smallest_MN = running_sums(weight_MN.flip(-1))
    normaliser_M1 = smallest_MN[:, -1:].clone()
    learned_sink_M = None
    if sink_M is not None:
        sunk_M = sink_weights(sink_M, highest_M1.squeeze(-1))
        normaliser_M1 += sunk_M[:, None]
        learned_sink_M = sunk_M / normaliser_M1.squeeze(-1)
    exact = ExactRows(
        logits_RN=logits_MN,
        n_R=torch.isfinite(logits_MN).sum(-1),
        logsumexp_R=(highest_M1.double() + normaliser_M1.log()).squeeze(-1),
        order_RN=order_MN,
        probability_RN=weight_MN.div_(normaliser_M1),
        smallest_RN=smallest_MN.div_(normaliser_M1),
        learned_sink_R=learned_sink_M,
    )
    return exact, highest_M1.squeeze(-1).isfinite()
