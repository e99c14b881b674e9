"""Frequent words (RULER's frequent words extraction): the most frequent words of a list with Zipf's law."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

from experiments.errors import UserError
from experiments.lazy import np
from experiments.ranges import check_range
from experiments.tasks import Drawn, Encode, Question
from experiments.tasks.words import draw_words, entries_in, listed

MOST_ASKED = 16


@dataclass
class FrequentWords:
    """Ask for the `asked` most frequent words of a list, the most frequent first; rank r is there r^-`exponent`."""

    name: str
    asked: int = 3
    exponent: float = 2.0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range(f"runner.tasks.{self.name}.asked", self.asked, least=1, most=MOST_ASKED)
        check_range(f"runner.tasks.{self.name}.exponent", self.exponent, above=1, most=10)

    def draw(self, sample: int, rng: np.random.Generator) -> Drawn:
        """Draw the words that are asked for."""
        words = draw_words(self.asked, rng)
        text = f"\nThe {self.asked} most frequent words of the list, the most frequent first, are:"
        parts = [f" {word}" if i == 0 else f", {word}" for i, word in enumerate(words)]
        return Drawn([Question(text, [parts])], partial(_context, words, self.exponent, rng))


def _context(
    words: list[str], exponent: float, rng: np.random.Generator, filler: list[int], room: int, encode: Encode
) -> list[int]:
    entries = entries_in(room, encode, rng)
    ranks = np.arange(1, max(entries, len(words)) + 1)
    shares = ranks**-exponent
    counts = np.maximum(np.round(entries * shares / shares.sum()), 1).astype(int)
    others = [word for word in draw_words(len(ranks) + len(words), rng) if word not in words]
    vocabulary = [*words, *others]
    order = rng.permutation(np.repeat(np.arange(len(ranks)), counts)[: max(entries, 1)])
    context, kept = listed([vocabulary[number] for number in order.tolist()], filler, room, encode)
    told = Counter(kept)
    falling = [told[word] for word in words] + [max((told[word] for word in others), default=0)]
    if any(after >= before for before, after in pairwise(falling)):
        raise UserError(
            "source.lengths is too short for the most frequent words to be told from others: give longer lengths"
        )
    return context
