"""What a budget file asks of each layer, as kvpress counts it: the share of a prompt's keys that are dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from experiments.errors import UserError
from experiments.windows.head_laws import keys_at

HALVINGS = 200
LESS = 1e-9  # kvpress rounds down to whole keys: without it, 40 / 64 of 64 keys may become 39


def layer_ratios(budget: Mapping[str, Any], length: int) -> list[float]:
    """Return each layer's compression ratio: one less the mean over its heads of what they keep of n keys, over n.

    Parameters
    ----------
    budget
        The content of a budget file.
    length
        The number of keys n: how long the prompt is.

    Raises
    ------
    UserError
        If the budget does not hold for prompts of this length, or a layer sees only a part of them: kvpress cuts, and
        `decode` reads, the cache as if every layer saw all of it.
    """
    if length > budget["supported_length"]:
        raise UserError(
            f"--length {length}: the budget of {budget['label']} holds up to {budget['supported_length']} tokens; "
            "measure longer contexts, or give a shorter prompt"
        )
    if partly := sorted({line["layer"] for line in budget["heads"] if line.get("sees", length) < length}):
        raise UserError(
            f"--length {length}: layer {partly[0]} of {budget['label']} does not see the whole prompt, which kvpress "
            "does not heed; give a shorter prompt, or a model without sliding-window layers"
        )
    shares = _shares(budget, length)
    return [1 - fmean(shares[layer]) for layer in sorted(shares)]


def head_ratios(budget: Mapping[str, Any], length: int) -> list[list[float]]:
    """Return each KV head's compression ratio, by layer: one less what the most demanding of its heads keeps over n.

    As `layer_ratios`, for a press that cuts each head by itself (`per_head.py`).

    Raises
    ------
    UserError
        As `layer_ratios`, and if the file does not say which heads share a KV head.
    """
    layer_ratios(budget, length)  # refuses what it refuses
    if "heads_per_kv_head" not in budget:
        raise UserError(
            f"the budget of {budget['label']} does not say which heads share a KV head; write it anew with "
            "python -m analysis.budget"
        )
    result = []
    for layer, shares in sorted(_shares(budget, length).items()):
        shared = budget["heads_per_kv_head"][layer]
        result.append([1 - max(shares[first : first + shared]) for first in range(0, len(shares), shared)])
    return result


def _shares(budget: Mapping[str, Any], length: int) -> dict[int, list[float]]:
    """Return the share of n keys that each head of each layer keeps, in the order of heads."""
    shares = defaultdict(list)
    for line in sorted(budget["heads"], key=lambda line: line["head"]):
        shares[line["layer"]].append(float(keys_at(line, np.array([float(length)]))[0]) / length)
    if sorted(shares) != list(range(len(shares))):
        raise UserError(f"the budget of {budget['label']} has laws of some layers only: make it from all layers")
    return shares


def scale_to(ratios: Sequence[float], mean: float, length: int, fewest: int = 1) -> list[float]:
    """Return the ratios after every window has grown or shrunk by one factor, so that their mean is `mean`.

    Parameters
    ----------
    ratios
        Of each layer, or of each KV head.
    mean
        The mean ratio wanted.
    length
        The number of keys n.
    fewest
        Each keeps at least so many keys, and at most n.

    Raises
    ------
    UserError
        If no windows between `fewest` and n have that mean.
    """
    if not 0 <= mean <= 1 - fewest / length:
        raise UserError(
            f"{(1 - mean) * length:.0f} keys per row: each keeps between {fewest} and {length}; "
            "give another factor, or a smaller observation window"
        )

    def scaled(factor: float) -> list[float]:
        return [1 - min(max(factor * (1 - ratio), fewest / length), 1.0) for ratio in ratios]

    low, high = 0.0, 2 / min(1 - ratio for ratio in ratios)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fmean(scaled(middle)) > mean else (low, middle)
    return [max(ratio - LESS, 0.0) for ratio in scaled(high)]
