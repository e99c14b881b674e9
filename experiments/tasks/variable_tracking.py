"""Variable tracking (RULER): which variables have a value, through a chain of assignments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from experiments.lazy import np
from experiments.ranges import check_range
from experiments.tasks import Drawn, Encode, Question
from experiments.tasks.haystack import spread

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_CHAINS, MOST_HOPS = 64, 64


@dataclass
class VariableTracking:
    """Ask for the variables of one of `chains` chains, each of which hands its value on `hops` times."""

    name: str
    chains: int = 1
    hops: int = 4
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range(f"runner.tasks.{self.name}.chains", self.chains, least=1, most=MOST_CHAINS)
        check_range(f"runner.tasks.{self.name}.hops", self.hops, least=1, most=MOST_HOPS)

    def draw(self, sample: int, rng: np.random.Generator) -> Drawn:
        """Draw names, values and depths; assignments of a chain stand in its order."""
        shape = (self.chains, self.hops + 1)
        names = np.array(
            [_name(n) for n in rng.choice(len(LETTERS) ** 3, shape, replace=False).ravel().tolist()]
        ).reshape(shape)
        values = rng.choice(np.arange(10_000, 100_000), self.chains, replace=False)
        depths = np.sort(rng.random(shape), axis=1)
        assigned = [
            (float(depths[c, i]), f"\nVAR {names[c, i]} = {values[c] if i == 0 else f'VAR {names[c, i - 1]}'}\n")
            for c in range(self.chains)
            for i in range(self.hops + 1)
        ]
        text = (
            f"\nFind all variables that are assigned the value {values[0]} in the text above, in the order in which "
            "they are assigned. They are: VAR"
        )
        parts = [f" {name}" if i == 0 else f", VAR {name}" for i, name in enumerate(names[0].tolist())]
        return Drawn([Question(text, [parts])], partial(_context, assigned))


def _name(number: int) -> str:
    base = len(LETTERS)
    return LETTERS[number // base**2] + LETTERS[number // base % base] + LETTERS[number % base]


def _context(assigned: list[tuple[float, str]], filler: list[int], room: int, encode: Encode) -> list[int]:
    return spread(filler, [encode(text) for _, text in assigned], [depth for depth, _ in assigned], room)
