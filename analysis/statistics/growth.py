"""Which heads see more keys as the context grows: those of a sliding-window layer stop at its window.

Where the number of visible keys stays the same there is nothing to fit against it, however the context grows.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def distinct(seen: Array, usable: Mask | None = None) -> Mask:
    """Tell where a head sees a number of keys that it saw at no shorter usable length, (heads, lengths).

    Parameters
    ----------
    seen : (heads, lengths), the most keys that a row of the head sees.
    usable : (heads, lengths), lengths that count; None for all.
    """
    same = (seen[:, :, None] == seen[:, None, :]) & np.tri(seen.shape[1], k=-1, dtype=bool)
    if usable is not None:
        same &= usable[:, None, :]
    return ~same.any(-1)


def alike(seen: Array) -> Mask:
    """Choose the heads that may be averaged at equal lengths, (heads,): they grow at most lengths, and at the same.

    All heads of a model whose layers see the whole context; its full layers where others have a sliding window.
    """
    grows = distinct(seen)
    return (grows == grows[grows.sum(-1).argmax()]).all(-1)


def of_alike(lines: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Keep the lines of heads that may be averaged, at lengths that differ in n; return the number of heads left out.

    Parameters
    ----------
    lines : rows or windows of one label and variant, with columns `layer`, `head`, `length` and `n`.
    """
    table = lines.pivot_table("n", ["layer", "head"], "length", "max")
    seen = table.to_numpy(np.float64)
    selected = alike(seen)
    grows = distinct(seen)[selected].all(0)
    if selected.all() and grows.all():
        return lines, 0
    head_key = pd.MultiIndex.from_frame(lines[["layer", "head"]])
    kept = head_key.isin(table.index[selected]) & lines["length"].isin(table.columns.to_numpy()[grows])
    return lines[kept], int((~selected).sum())


def stands_still(seen: Array, least: int) -> Mask:
    """Tell which heads see fewer than `least` different numbers of keys because theirs do not grow, (heads,)."""
    grows = distinct(seen)
    return (grows.sum(-1) < least) & ~grows.all(-1)


def no_growth(seen: Array) -> str:
    """Say of one head, (lengths,), why there is no exponent."""
    different = len(np.unique(seen))
    return (
        f"n does not grow with the context: at most {seen.max():,.0f} keys are visible, "
        f"{different} different n at {len(seen)} lengths"
    )
