"""On a card: a forward pass with all heads measured at all lengths against the plain pass, the model in memory."""

from __future__ import annotations

import torch

from benchmarks.pairs import time_pairs
from benchmarks.probe import LENGTHS, PAIRS, Sides


def run() -> dict[str, float]:
    """Return `card_time_ratio`; nothing where there is no card."""
    if not torch.accelerator.is_available():
        print("  no card is at hand: nothing is timed")
        return {}
    sides = Sides("cuda")

    def plain() -> None:
        sides.plain()
        torch.accelerator.synchronize()

    pairs = time_pairs(sides.probed, plain, PAIRS)
    print(f"  {torch.cuda.get_device_name()}, SmolLM2, {LENGTHS[-1]} tokens, probed / plain: {pairs.describe()}")
    return pairs.results("card_time_ratio")
