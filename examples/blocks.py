"""A budget for a serving engine that evicts by block: what each KV head may hold, and which blocks go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def blocks_to_evict(
    budget: Mapping[str, Any], layer: int, kv_head: int, score_B: np.ndarray, length: int
) -> np.ndarray:
    """Return which blocks of a KV head's cache go, the lowest scores first, at a context length; indices.

    A budget file gives keys at some lengths (`cache`); between them the next longer one counts, beyond them the last.
    """
    parts = [part for part in budget["cache"]["parts"] if (part["layer"], part["kv_head"]) == (layer, kv_head)]
    part = next((part for part in parts if part["length"] >= length), parts[-1])
    held = part["keys"] // budget["cache"]["block"]
    return np.sort(np.argsort(score_B, kind="stable")[: max(len(score_B) - held, 0)])
