"""Needles in a haystack: pass keys that stand somewhere in the text (RULER's single, multi-key, -value and -query)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from experiments.errors import UserError
from experiments.lazy import np
from experiments.ranges import check_range
from experiments.tasks import Drawn, Encode, Question
from experiments.tasks.haystack import spread

COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink", "golden", "silver", "purple", "orange")
THINGS = ("door", "box", "house", "boat", "garden", "tower", "bridge", "ship", "room", "gate", "train", "school")
MOST_KEYS = len(COLOURS) * len(THINGS)
MOST_VALUES = 64
NEEDLE = "\nThe pass key of the {key} is {value}. Remember it.\n"


@dataclass
class Needle:
    """Ask for the pass keys of `queries` things, of `keys` in the text, each of which has `values`.

    Attributes
    ----------
    depth
        Share of the text before the pass keys that are asked for, 0 its start and 1 its end; null for depths at random,
        which those of other things always have.
    """

    name: str
    keys: int = 1
    values: int = 1
    queries: int = 1
    depth: float | None = None
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        key = f"runner.tasks.{self.name}"
        check_range(f"{key}.keys", self.keys, least=1, most=MOST_KEYS)
        check_range(f"{key}.values", self.values, least=1, most=MOST_VALUES)
        check_range(f"{key}.queries", self.queries, least=1)
        check_range(f"{key}.depth", self.depth, least=0, most=1)
        if self.queries > self.keys:
            raise UserError(f"{key}.queries={self.queries}: there are only {self.keys} keys to ask for")

    def draw(self, sample: int, rng: np.random.Generator) -> Drawn:
        """Draw things, pass keys and depths; pass keys are asked for thing by thing, as they stand in the text."""
        things = [f"{COLOURS[n // len(THINGS)]} {THINGS[n % len(THINGS)]}" for n in rng.permutation(MOST_KEYS)]
        shape = (self.keys, self.values)
        numbers = rng.choice(np.arange(10_000, 100_000), shape, replace=False)
        depths = np.sort(rng.random(shape), axis=1)
        if self.depth is not None:
            depths[: self.queries] = self.depth
        needles = [
            (float(depths[k, v]), NEEDLE.format(key=things[k], value=numbers[k, v]))
            for k in range(self.keys)
            for v in range(self.values)
        ]
        asked = things[: self.queries]
        many = "s" if numbers[: self.queries].size > 1 else ""
        names = " and ".join(filter(None, [", ".join(f"the {thing}" for thing in asked[:-1]), f"the {asked[-1]}"]))
        text = f"\nNow recall what you read. The pass key{many} of {names} {'are' if many else 'is'}"
        parts = [f" {number}" if i == 0 else f", {number}" for i, number in enumerate(numbers[: self.queries].flat)]
        return Drawn([Question(text, [parts])], partial(_context, needles))


def _context(needles: list[tuple[float, str]], filler: list[int], room: int, encode: Encode) -> list[int]:
    return spread(filler, [encode(text) for _, text in needles], [depth for depth, _ in needles], room)
