"""What a budget keeps on text that it was not fitted to, and what its laws say at other lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.budget.laws import Laws
from analysis.budget.needs import Needs
from analysis.statistics.conformal import conformal, samples_needed
from experiments.errors import UserError

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


def promise_of_prompts(needs: Needs, test: slice, laws: Laws, coverage: float, share: float) -> dict[str, Any]:
    """Return the factor on all windows that serves a share of new prompts, of as many held-out samples as it takes.

    A prompt is served where a share `coverage` of the rows of all heads and lengths stay within the tolerance. Its
    score is the smallest factor that does so; see `conformal`.

    Raises
    ------
    UserError : if the share is no share, or takes more samples than are held out.
    """
    if not 0 < share < 1:
        raise UserError(f"--prompts {share}: give a share between 0 and 1")
    given = laws.level[:, None, None] + laws.slope[:, None, None] * np.log(needs.n)  # heads, lengths, rows
    excess = np.log(needs.k[:, :, test]) - given[:, :, None]
    scores = np.quantile(np.moveaxis(excess, 2, 0).reshape(excess.shape[2], -1), coverage, axis=1, method="higher")
    needed = samples_needed(share)
    if len(scores) < needed:
        raise UserError(
            f"--prompts {share:g}: takes {needed} samples that were not fitted, but {len(scores)} are held out; "
            f"measure {2 * needed} samples"
        )
    return {"share": share, "samples": len(scores), "factor": float(np.exp(conformal(scores, share)))}
