"""Static columns: how much of some rows' mass the keys hold that have most of other rows' mass.

Shape letters: R rows, N keys, K numbers of columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.cache import softmax
from experiments.rows import Rows, check_rows


def column_means(rows: Rows, ks: Sequence[int], block: int) -> tuple[Tensor, Tensor]:
    """Return the mean probability of each key [N] over rows of one head, and of each row's own k most probable [K].

    Rows are looked at `block` at a time.

    Raises
    ------
    UserError
        If a logit is NaN or infinite, or a row sees no key.
    """
    sums = [_column_sums(rows.block(start, start + block), ks) for start in range(0, len(rows), block)]
    sum_N, own_K = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
    return sum_N / len(rows), own_K / len(rows)


def _column_sums(rows: Rows, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
    logits_RN = rows.logits().double()
    check_rows(logits_RN.amax(-1))
    p_RN = softmax(logits_RN, rows.sink_R)
    return p_RN.sum(0), recalls(p_RN, p_RN, ks).sum(0)


def recalls(chosen_XN: Tensor, scored_XN: Tensor, ks: Sequence[int]) -> Tensor:
    """Return the sum of what is scored over the k keys of which most is chosen [X, K]; of equal keys the first are."""
    order_XN = chosen_XN.argsort(dim=-1, descending=True, stable=True)
    total_XN = scored_XN.gather(-1, order_XN).cumsum(-1)
    return total_XN[..., torch.tensor(ks, device=total_XN.device) - 1]
