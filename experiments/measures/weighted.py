"""Rows of weighted samples: a kept key stands for as many as it took to draw it.

The estimate is w_j p_j over the keys kept, renormalised; truncated, it is w_j p_j with the exact normaliser, whose mean
over draws is the exact row. The identities [T1] to [T6] do not hold for it, so every window is measured by itself.

Shape letters: R rows, N keys, V value dimension, W windows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def measure_weighted(
    order_RN: Tensor,
    probability_RN: Tensor,
    value_NV: Tensor,
    k_RW: Tensor,
    weight: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Measure the rows that keep the first k keys of an order, weighted, for every window.

    Parameters
    ----------
    order_RN
        Key indices in the order in which they are drawn.
    probability_RN
        Exact probabilities in key order, float64.
    value_NV
        Values in key order.
    k_RW
        Keys kept, 1 <= k <= n.
    weight
        Maps k [R] to the weight of every key [R, N] in key order.

    Returns
    -------
    dict
        What `experiments.measures.sparse.measure` returns; `dropped_mass` is that of the keys not kept, and `kl` is
        KL(estimate || exact), as in [T2].
    """
    place_RN = torch.empty_like(order_RN)
    place_RN.scatter_(1, order_RN, torch.arange(order_RN.shape[1], device=order_RN.device).expand_as(order_RN))
    value_NV = value_NV.double()
    found: dict[str, list[Tensor]] = {}
    for k_R in k_RW.T:
        kept_RN = place_RN < k_R[:, None]
        truncated_RN = torch.where(kept_RN, weight(k_R) * probability_RN, 0.0)
        renormalised_RN = truncated_RN / truncated_RN.sum(-1, keepdim=True)
        off_RN, renormalised_off_RN = truncated_RN - probability_RN, renormalised_RN - probability_RN
        ratio_RN = torch.where(kept_RN, renormalised_RN / probability_RN, 1.0)
        window = {
            "dropped_mass": torch.where(kept_RN, 0.0, probability_RN).sum(-1),
            "tv": renormalised_off_RN.abs().sum(-1) / 2,
            "kl": torch.special.xlogy(renormalised_RN, ratio_RN).sum(-1),
            "linf_truncated": off_RN.abs().amax(-1),
            "linf_renormalised": renormalised_off_RN.abs().amax(-1),
            "l2_truncated": off_RN.norm(dim=-1),
            "l2_renormalised": renormalised_off_RN.norm(dim=-1),
            "output_truncated": (off_RN @ value_NV).square().sum(-1),
            "output_renormalised": (renormalised_off_RN @ value_NV).square().sum(-1),
        }
        for name, values_R in window.items():
            found.setdefault(name, []).append(values_R)
    measures = {name: torch.stack(columns, dim=1) for name, columns in found.items()}
    return measures | {"output": (probability_RN @ value_NV).square().sum(-1)}
