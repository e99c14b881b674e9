"""Attention over the k most probable keys alone, in plain torch.

Shape letters: R rows, N keys, V value dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor


def top_k_output(logits_RN: Tensor, value_NV: Tensor, k_R: Tensor) -> Tensor:
    """Return the outputs [R, V] of rows that attend to their `k_R` most probable keys, renormalised.

    Parameters
    ----------
    logits_RN
        Scaled logits, -inf where a key is not visible.
    k_R
        Keys kept, at least 1 and at most those visible; ties go to the lower key index.
    """
    kept_RN = top_k_mask(logits_RN, k_R)
    return torch.softmax(logits_RN.masked_fill(~kept_RN, -torch.inf), dim=-1) @ value_NV.to(logits_RN.dtype)


def top_k_mask(logits_RN: Tensor, k_R: Tensor) -> Tensor:
    """Return which keys are among the k largest of their row [R, N]; see `top_k_output`.

    Nothing is sorted but the largest: of the keys as large as the k-th, as many of the first are kept as are missing.
    """
    last_R1 = _kth(logits_RN, k_R, largest=True)
    return _with_ties(logits_RN > last_R1, logits_RN == last_R1, k_R)


def weights_above(logits_RN: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return how many keys have a probability above `epsilon` [R], and weights [R, N] that are 0 for all others.

    Parameters
    ----------
    logits_RN
        Scaled logits, -inf where a key is not visible.
    epsilon
        If no key is above it, the most probable one counts.
    """
    probability_RN = torch.softmax(logits_RN.double(), dim=-1)
    k_R = (probability_RN > epsilon).sum(-1).clamp(min=1)
    return k_R, probability_RN.masked_fill(~top_k_mask(logits_RN, k_R), 0.0).to(logits_RN.dtype)


def first_mask(turn_RN: Tensor, k_R: Tensor) -> Tensor:
    """Return which keys are the `k_R` of the lowest turns of their row [R, N]; of equal turns the first keys are.

    As in `top_k_mask`, k is at least 1 and nothing is sorted but the lowest. No turn may be NaN.
    """
    last_R1 = _kth(turn_RN, k_R, largest=False)
    return _with_ties(turn_RN < last_R1, turn_RN == last_R1, k_R)


def _kth(value_RN: Tensor, k_R: Tensor, *, largest: bool) -> Tensor:
    """Return the k-th largest or smallest value of each row [R, 1]."""
    return value_RN.topk(int(k_R.max()), dim=-1, largest=largest).values.gather(1, k_R[:, None] - 1)


def _with_ties(before_RN: Tensor, tied_RN: Tensor, k_R: Tensor) -> Tensor:
    """Return the keys that come before the k-th of their row, and of those tied with it the first, `k_R` in all."""
    missing_R1 = k_R[:, None] - before_RN.sum(-1, keepdim=True)
    return before_RN | (tied_RN & (tied_RN.cumsum(-1, dtype=torch.int32) <= missing_R1))
