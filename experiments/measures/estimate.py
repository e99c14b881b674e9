"""Rows that a vector w stands for: the estimate of a method, or kept keys that each weigh for several.

Truncated, the row is w itself, relative to the exact normaliser; renormalised, w / sum w. The identities [T1] to [T6]
do not hold, so every window is measured by itself.

Shape letters: R rows, N keys, V value dimension, W windows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LEAST_SUM = 0.01


def measure_estimate(
    row: Callable[[Tensor], Tensor],
    probability_RN: Tensor,
    value_NV: Tensor,
    k_RW: Tensor,
    least_sum: float = LEAST_SUM,
) -> dict[str, Tensor]:
    """Measure the rows of an estimate, for every window.

    Parameters
    ----------
    row
        Maps budgets k [R] to w [R, N] in key order, float64; NaN below the method's least budget.
    probability_RN
        Exact probabilities in key order, float64.
    value_NV
        Values in key order.
    k_RW
        Budgets, 1 <= k <= n.
    least_sum
        A row whose w sums to no more has failed: its renormalised measures would say nothing.

    Returns
    -------
    dict
        What `experiments.reference.subset.measure_subset` returns. `dropped_mass` is NaN; `kl` is KL(estimate, exact)
        as in [T2], NaN where an entry is negative; renormalised measures of a failed row are NaN.
    """
    windows = [_window(row(k_R), probability_RN, value_NV.double(), least_sum) for k_R in k_RW.T]
    none = {name: k_RW.new_empty(len(k_RW), 0, dtype=torch.float64) for name in MEASURES}
    measures = (
        {name: torch.stack([window[name] for window in windows], dim=1) for name in MEASURES} if windows else none
    )
    return measures | {"output": (probability_RN @ value_NV.double()).square().sum(-1)}


def measure_weighted(
    order_RN: Tensor,
    weight: Callable[[Tensor], Tensor],
    probability_RN: Tensor,
    value_NV: Tensor,
    k_RW: Tensor,
    learned_sink_R: Tensor | None = None,
) -> dict[str, Tensor]:
    """Measure the rows that keep the first k keys of an order, weighted: an estimate w_j = weight_j p_j of those kept.

    Parameters
    ----------
    order_RN
        Key indices in the order in which they are drawn.
    weight
        Maps k [R] to the weight of every key [R, N] in key order.
    learned_sink_R
        Probability of a learned sink, which stands for itself alone; None for none.

    Returns
    -------
    dict
        As of `measure_estimate`; `dropped_mass` is that of the keys that are not kept.
    """
    rank_RN = torch.empty_like(order_RN)
    rank_RN.scatter_(1, order_RN, torch.arange(order_RN.shape[1], device=order_RN.device).expand_as(order_RN))

    def with_sink(row_RN: Tensor) -> Tensor:
        return row_RN if learned_sink_R is None else torch.cat([row_RN, learned_sink_R[:, None]], dim=1)

    def row(k_R: Tensor) -> Tensor:
        return with_sink(torch.where(rank_RN < k_R[:, None], weight(k_R) * probability_RN, 0.0))

    if learned_sink_R is not None:
        value_NV = torch.cat([value_NV, torch.zeros_like(value_NV[:1])])
    measures = measure_estimate(row, with_sink(probability_RN), value_NV, k_RW, least_sum=0.0)  # none is negative
    dropped = [torch.where(rank_RN < k_R[:, None], 0.0, probability_RN).sum(-1) for k_R in k_RW.T]
    return measures | {"dropped_mass": torch.stack(dropped, dim=1) if dropped else measures["dropped_mass"]}


MEASURES = (
    *("dropped_mass", "tv", "kl", "linf_truncated", "linf_renormalised", "l2_truncated", "l2_renormalised"),
    *("output_truncated", "output_renormalised", "negative_mass", "normaliser_error", "failed"),
)


def _window(w_RN: Tensor, probability_RN: Tensor, value_NV: Tensor, least_sum: float) -> dict[str, Tensor]:
    sum_R = w_RN.sum(-1)
    failed_R = sum_R <= least_sum
    renormalised_RN = w_RN / sum_R.masked_fill(failed_R, torch.nan)[:, None]
    off_RN, renormalised_off_RN = w_RN - probability_RN, renormalised_RN - probability_RN
    ratio_RN = torch.where(w_RN > 0, renormalised_RN / probability_RN, 1.0)
    kl_R = torch.special.xlogy(renormalised_RN, ratio_RN).sum(-1)
    return {
        "dropped_mass": torch.full_like(sum_R, torch.nan),
        "tv": renormalised_off_RN.abs().sum(-1) / 2,
        "kl": kl_R.masked_fill((w_RN < 0).any(-1), torch.nan),
        "linf_truncated": off_RN.abs().amax(-1),
        "linf_renormalised": renormalised_off_RN.abs().amax(-1),
        "l2_truncated": off_RN.norm(dim=-1),
        "l2_renormalised": renormalised_off_RN.norm(dim=-1),
        "output_truncated": (off_RN @ value_NV).square().sum(-1),
        "output_renormalised": (renormalised_off_RN @ value_NV).square().sum(-1),
        "negative_mass": -renormalised_RN.clamp(max=0).sum(-1),
        "normaliser_error": sum_R.masked_fill(failed_R, torch.nan).log().abs(),
        "failed": failed_R.double().masked_fill(sum_R.isnan(), torch.nan),
    }
