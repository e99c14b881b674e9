"""A sample of a size of its own choice, and whether it keeps its promise (after vAttention, arXiv 2510.05688).

Shape letters: R rows, N keys.
"""

from __future__ import annotations

import torch
from torch import Tensor


def measure_coverage(
    logits_RN: Tensor, exact_RN: Tensor, number_RN: Tensor, base: float, epsilon: float, delta: float
) -> dict[str, Tensor]:
    """Estimate the denominator of rows from exact keys and a uniform sample of the others.

    From a base sample come the deviation s of exp(logit) and a first denominator D; the sample's size is then
    (q s N / (epsilon D))^2, N the number of other keys and q the normal quantile of 1 - delta, held within the base
    and N. A larger sample contains a smaller one.

    Parameters
    ----------
    logits_RN
        Scaled, masked logits; -inf where a key is not visible.
    exact_RN
        True for keys that are exact.
    number_RN
        A random number for each key, by which the others are ordered.
    base
        Share of the others in the base sample; it has at least 2 keys.

    Returns
    -------
    dict
        Per row [R], float64: `covered`, 1 if the denominator is within epsilon of the exact one; `sampled`, the share
        of the others in the sample; `keys`, those read.
    """
    weight_RN = (logits_RN.double() - logits_RN.double().amax(-1, keepdim=True)).exp()
    other_RN = ~exact_RN & ~torch.isneginf(logits_RN)
    others_R = other_RN.sum(-1)
    order_RN = number_RN.masked_fill(~other_RN, torch.iinfo(torch.int64).max).argsort(dim=-1, stable=True)
    drawn_RN = torch.where(other_RN, weight_RN, 0.0).gather(1, order_RN)
    sums_RN, squares_RN = drawn_RN.cumsum(-1), drawn_RN.square().cumsum(-1)

    def up_to(sum_RN: Tensor, count_R: Tensor) -> Tensor:
        return sum_RN.gather(1, (count_R - 1).clamp(min=0)[:, None])[:, 0]

    base_R = (base * others_R).ceil().long().clamp(min=2).minimum(others_R)
    mean_R = up_to(sums_RN, base_R) / base_R.clamp(min=1)
    spread_R = (up_to(squares_RN, base_R) - base_R * mean_R.square()).clamp(min=0) / (base_R - 1).clamp(min=1)
    exact_R = torch.where(exact_RN, weight_RN, 0.0).sum(-1)
    quantile = -torch.special.ndtri(torch.tensor(delta, dtype=torch.float64))
    reach_R = quantile * spread_R.sqrt() * others_R / (epsilon * (exact_R + others_R * mean_R))
    size_R = reach_R.square().ceil().clamp(max=float(2**31)).long().maximum(base_R).minimum(others_R)
    estimate_R = exact_R + up_to(sums_RN, size_R) * others_R / size_R.clamp(min=1)
    true_R = weight_RN.sum(-1)
    within_R = (estimate_R - true_R).abs() <= epsilon * true_R * (1 + 1e-9)
    return {
        "covered": (within_R | (others_R == 0)).double(),
        "sampled": size_R / others_R.clamp(min=1),
        "keys": (exact_RN.sum(-1) + size_R).double(),
    }
