"""What selectors that look back know of a row: the attention of the rows before it.

Shape letters besides those of `experiments.rows`: H query heads that share their keys, T earlier rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from experiments.rows import Rows

CHUNK = 256  # earlier rows at a time
MOST_OBSERVED = 4096  # earlier rows that are held together


def own_head(rows: Rows, heads: int) -> int:
    """Return the place of these rows' head among the `heads` that share its keys."""
    return rows.head % heads


def accumulated(rows: Rows, position: Tensor, together: bool) -> Iterator[tuple[int, Tensor]]:
    """Yield each position, ascending, with the attention [N] that every key has had from all rows before it.

    Parameters
    ----------
    position
        Positions of rows.
    together
        Add up all heads that share the keys, as a cache per KV head must; otherwise the rows' own head alone.
    """
    total_N = torch.zeros(rows.keys, dtype=torch.float64, device=rows.query_RD.device)
    done = 0
    for stop in position.unique().tolist():
        while done < stop:
            until = min(done + CHUNK, stop)
            weight_HTN = rows.earlier_rows(done, until)
            chosen_HTN = weight_HTN if together else weight_HTN[own_head(rows, len(weight_HTN))][None]
            total_N[:until] += chosen_HTN.sum((0, 1), dtype=torch.float64)
            done = until
        yield stop, total_N.clone()


def observed(rows: Rows, position: Tensor, window: int) -> Iterator[tuple[int, Tensor]]:
    """Yield each position, ascending, with the attention [H, T, position] of the T <= `window` rows just before it."""
    for stop in position.unique().tolist():
        yield stop, rows.earlier_rows(max(stop - window, 0), stop) if stop else rows.earlier_rows(0, 1)[:, :0, :0]


def by_score(score_RN: Tensor, visible_RN: Tensor) -> Tensor:
    """Return the place [R, N] of every key in the order of falling scores; ties go to the lower key index.

    Pooled votes tie often: of a sink and its neighbours, the sink is to be first.
    """
    shown_RN = score_RN.masked_fill(~visible_RN, -torch.inf)
    order_RN = shown_RN.argsort(dim=-1, descending=True, stable=True)
    place_RN = torch.empty_like(order_RN)
    place_RN.scatter_(1, order_RN, torch.arange(score_RN.shape[1], device=score_RN.device).expand_as(place_RN))
    return place_RN.double()
