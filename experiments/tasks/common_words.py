"""Common words (RULER's common words extraction): those that a list has most often."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from experiments.errors import UserError
from experiments.lazy import np
from experiments.ranges import check_range
from experiments.tasks import Drawn, Encode, Question
from experiments.tasks.words import draw_words, entries_in, listed

MOST_COMMON = 64
RARER = 10  # a common word is there as often as so many others together


@dataclass
class CommonWords:
    """Ask for the `common` words of a list that are there most often, in the order in which they first appear.

    They make up a third of the list. The others are there a tenth as often, or once.
    """

    name: str
    common: int = 10
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range(f"runner.tasks.{self.name}.common", self.common, least=1, most=MOST_COMMON)

    def draw(self, sample: int, rng: np.random.Generator) -> Drawn:
        """Draw the common words in the order in which they will appear."""
        words = draw_words(self.common, rng)
        text = f"\nThe {self.common} most common words of the list, in the order in which they first appear, are:"
        parts = [f" {word}" if i == 0 else f", {word}" for i, word in enumerate(words)]
        return Drawn([Question(text, [parts])], partial(_context, words, rng))


def _context(words: list[str], rng: np.random.Generator, filler: list[int], room: int, encode: Encode) -> list[int]:
    entries = entries_in(room, encode, rng)
    often = entries // (3 * len(words))
    if often < 2:
        raise UserError(
            f"source.lengths is too short: {len(words)} common words need a list of {6 * len(words)}, and {entries} "
            "have room; give longer lengths, or fewer common words"
        )
    seldom = max(often // RARER, 1)
    others = [word for word in draw_words(entries + len(words), rng) if word not in words]
    rare = others[: (entries - often * len(words)) // seldom]
    order = rng.permutation([*range(len(words))] * often + [*range(len(words), len(words) + len(rare))] * seldom)
    named: dict[int, str] = {}
    free = iter(words)
    for number in order.tolist():  # the first common one to appear gets the first name
        if number not in named:
            named[number] = next(free) if number < len(words) else rare[number - len(words)]
    context, kept = listed([named[number] for number in order.tolist()], filler, room, encode)
    counts = Counter(kept)
    if min(counts[word] for word in words) <= max((counts[word] for word in rare), default=0):
        raise UserError("source.lengths is too short for common words to be told from others: give longer lengths")
    return context
