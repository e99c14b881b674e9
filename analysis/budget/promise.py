"""What a budget keeps on text that it was not fitted to, and what its laws say at other lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.budget.laws import Laws
from analysis.budget.needs import Needs

Array = NDArray[np.float64]


def keys_at(
    laws: Laws, sees: Array, factor: float, lengths: Sequence[int], reach: float, confidence: float
) -> list[list[dict[str, Any]]]:
    """Return for each head k and its prediction interval at each length, those beyond `reach` marked."""
    lines: list[list[dict[str, Any]]] = [[] for _ in sees]
    for length in lengths:
        n = np.minimum(float(length), sees)
        with np.errstate(over="ignore"):
            bounds = [np.clip(np.ceil(factor * np.exp(part)), 1, n) for part in laws.interval(n, confidence)]
        for line, k, low, high in zip(lines, *map(np.ndarray.tolist, bounds), strict=True):
            line.append({"length": length, "k": k, "low": low, "high": high, "extrapolation": length > reach})
    return lines


def promise(needs: Needs, test: slice, laws: Laws, factor: float, coverage: float) -> list[dict[str, float]]:
    """Return, per length, the shares of held-out rows and heads that stay within the tolerance."""
    lines = []
    for i, length in enumerate(needs.lengths):
        n = needs.n[:, i]
        given = np.ceil(factor * np.exp(laws.level[:, None] + laws.slope[:, None] * np.log(n)))
        given = np.clip(given, 1, n)
        within = (needs.k[:, i, test] <= given[:, None]).mean((1, 2))
        shares = {"rows": float(within.mean()), "heads": float((within >= coverage).mean())}
        lines.append({"length": length, **shares, "mean_keys": float(given.mean())})
    return lines
