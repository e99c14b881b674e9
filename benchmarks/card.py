"""On a card: a forward pass with all heads measured at all lengths against the plain pass, the model in memory."""

from __future__ import annotations

import torch

from benchmarks.pairs import time_pairs
from benchmarks.probe import LENGTHS, PAIRS, Sides


def run() -> dict[str, float]:
    """Return `card_time_ratio`, and `card_triton_time_ratio` with the Triton kernel; nothing where there is no card."""
    if not torch.accelerator.is_available():
        print("  no card is at hand: nothing is timed")
        return {}
    results: dict[str, float] = {}
    for name, triton in (("card_time_ratio", False), ("card_triton_time_ratio", True)):
        sides = Sides("cuda", triton=triton)

        def plain(sides: Sides = sides) -> None:
            sides.plain()
            torch.accelerator.synchronize()

        pairs = time_pairs(sides.probed, plain, PAIRS)
        card = f"{torch.cuda.get_device_name()}, {'Triton' if triton else 'torch'}"
        print(f"  {card}, SmolLM2, {LENGTHS[-1]} tokens, probed / plain: {pairs.describe()}")
        results |= pairs.results(name)
    return results
